//! `pier system df -v`: image by image, container by container, volume by volume.

use api::distribution::v1::{DiskUsageRequest, ImageUsage};
use api::engine::v1::ListContainersRequest;
use api::volume::v1::{ListVolumesRequest, Volume};
use console::Template;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use crate::show::listing::{self, Column};
use crate::show::{container, image};

const IMAGES: [Column; 8] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
];
const CONTAINERS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];
const VOLUMES: [Column; 3] = [("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")];

/// Prints it: tables, one JSON document, or a template of that.
pub async fn run(client: &Client, format: Option<&str>) -> anyhow::Result<u8> {
    let (images, containers, volumes) = (images(client).await?, containers(client).await?, volumes(client).await?);
    match format.map(str::trim) {
        None | Some("" | "table") => {
            let parts: [(&str, &[Value], &[Column]); 3] = [
                ("Images", &images, &IMAGES),
                ("Containers", &containers, &CONTAINERS),
                ("Local Volumes", &volumes, &VOLUMES),
            ];
            for (title, rows, columns) in parts {
                say(format_args!("{title} space usage:\n"))?;
                listing::print(rows, columns, None)?;
                say("")?;
            }
        }
        Some(format) => {
            let document = json!({"Images": images, "Containers": containers, "Volumes": volumes});
            match format {
                "json" => console::print_json_line(&document)?,
                template => say(Template::parse(template)?.render(&document)?)?,
            }
        }
    }
    Ok(0)
}

async fn images(client: &Client) -> anyhow::Result<Vec<Value>> {
    let usage = client.distribution().await?.disk_usage(DiskUsageRequest { detail: true }).await.answer()?;
    Ok(usage.by_image.iter().flat_map(image_rows).collect())
}

/// A row for each name, as `images` has them, with what the image shares.
fn image_rows(usage: &ImageUsage) -> Vec<Value> {
    let size = |bytes: i64| console::human_size(bytes.max(0).unsigned_abs());
    let image = api::distribution::v1::Image {
        id: usage.id.clone(),
        names: usage.names.clone(),
        created_at: usage.created_at.clone(),
        size_bytes: usage.size_bytes,
        ..Default::default()
    };
    let mut rows = image::rows(&image, false);
    for row in &mut rows {
        row["SharedSize"] = size(usage.shared_bytes).into();
        row["UniqueSize"] = size(usage.unique_bytes).into();
        row["Containers"] = usage.snapshots.to_string().into();
    }
    rows
}

async fn containers(client: &Client) -> anyhow::Result<Vec<Value>> {
    let request = ListContainersRequest { all: true, with_size: true, ..Default::default() };
    let answer = client.engine().await?.list_containers(request).await.answer()?;
    warn(&answer.warnings);
    Ok(answer.containers.iter().map(|view| container::row(view, false, true)).collect())
}

async fn volumes(client: &Client) -> anyhow::Result<Vec<Value>> {
    let request = ListVolumesRequest { with_size: true, ..Default::default() };
    let answer = client.volume().await?.list_volumes(request).await.answer()?;
    warn(&answer.warnings);
    let size = |bytes: i64| u64::try_from(bytes).map_or_else(|_| "N/A".to_owned(), console::human_size);
    let row = |volume: &Volume| {
        json!({
            "Name": volume.name, "Links": volume.consumers.len().to_string(), "Size": size(volume.size_bytes), "Driver": volume.driver,
        })
    };
    Ok(answer.volumes.iter().map(row).collect())
}
