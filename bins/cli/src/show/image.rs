//! Images as docker shows them.

use api::distribution::v1::Image;
use serde_json::{Value, json};

use super::listing::{Column, id};

/// Docker's columns.
pub const COLUMNS: [Column; 5] =
    [("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];

/// With `--digests`.
pub const COLUMNS_WITH_DIGEST: [Column; 6] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

const NONE: &str = "<none>";

/// A row for each name of an image; one without names has a row too.
pub fn rows(image: &Image, whole: bool) -> Vec<Value> {
    let digest = image.target.as_ref().map_or(NONE, |target| target.digest.as_str());
    let size = console::human_size(image.size_bytes.max(0).unsigned_abs());
    let row = |repository: &str, tag: &str| {
        json!({
            "Repository": repository, "Tag": tag, "ID": id(&image.id, whole), "Digest": digest,
            "CreatedAt": at(&image.created_at), "CreatedSince": console::human_ago(&image.created_at),
            "Size": size, "VirtualSize": size, "SharedSize": "N/A", "UniqueSize": "N/A", "Containers": "N/A",
        })
    };
    if image.names.is_empty() {
        let repository = image.repo_digests.first().and_then(|digest| digest.split_once('@'));
        return vec![row(&repository.map_or_else(|| NONE.to_owned(), |(name, _)| familiar(name)), NONE)];
    }
    let split = |name: &String| match name.parse::<oci::Reference>() {
        Ok(reference) => (reference.familiar_name(), reference.tag().unwrap_or(NONE).to_owned()),
        Err(_) => (name.clone(), NONE.to_owned()),
    };
    image.names.iter().map(split).map(|(repository, tag)| row(&repository, &tag)).collect()
}

/// As docker prints a time in a listing: "2026-11-22 02:00:00 +0000 UTC".
fn at(rfc3339: &str) -> String {
    let time = rfc3339.parse::<jiff::Timestamp>();
    time.map_or_else(|_| rfc3339.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// "busybox" for "docker.io/library/busybox".
fn familiar(name: &str) -> String {
    name.parse::<oci::Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar_name())
}

/// A name as people write it.
pub fn familiar_reference(name: &str) -> String {
    name.parse::<oci::Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Docker's document of an image.
pub fn document(image: &Image) -> Value {
    let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
    let platform = image.platform.clone().unwrap_or_default();
    let digest = |name: &String| match name.split_once('@') {
        Some((repository, digest)) => format!("{}@{digest}", familiar(repository)),
        None => name.clone(),
    };
    json!({
        "Id": image.id,
        "RepoTags": image.names.iter().map(|name| familiar_reference(name)).collect::<Vec<_>>(),
        "RepoDigests": image.repo_digests.iter().map(digest).collect::<Vec<_>>(),
        "Parent": "",
        "Comment": config["history"].as_array().and_then(|steps| steps.last()?["comment"].as_str()).unwrap_or_default(),
        "Created": image.created_at,
        "Author": config["author"].as_str().unwrap_or_default(),
        "Config": config["config"],
        "Architecture": platform.architecture, "Variant": platform.variant, "Os": platform.os,
        "OsVersion": platform.os_version,
        "Size": image.size_bytes, "VirtualSize": image.size_bytes,
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Descriptor": image.target.as_ref().map(|target| json!({
            "mediaType": target.media_type, "digest": target.digest, "size": target.size,
        })),
        "Manifest": image.manifest.as_ref().map(|manifest| &manifest.digest),
    })
}

/// Rows of `history`, newest first: its steps, each with the size of its layer's blob.
pub fn history(image: &Image, whole: bool, human: bool) -> Vec<Value> {
    let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
    let mut layers = image.layers.iter();
    let mut rows = Vec::new();
    for step in config["history"].as_array().into_iter().flatten() {
        let empty = step["empty_layer"].as_bool().unwrap_or(false);
        let size = if empty { 0 } else { layers.next().map_or(0, |layer| layer.size.max(0).unsigned_abs()) };
        let created = step["created"].as_str().unwrap_or_default();
        let by = step["created_by"].as_str().unwrap_or_default();
        let shown = if whole || by.chars().count() <= 45 {
            by.to_owned()
        } else {
            format!("{}…", by.chars().take(44).collect::<String>())
        };
        rows.push(json!({
            "ID": "<missing>", "CreatedAt": created, "CreatedBy": shown,
            "CreatedSince": if human { console::human_ago(created) } else { created.to_owned() },
            "Size": if human { console::human_size(size) } else { size.to_string() }, "Comment": step["comment"].as_str().unwrap_or_default(),
        }));
    }
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first["ID"] = id(&image.id, whole).into();
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_and_nameless() {
        let mut image = Image {
            id: "sha256:0123456789abcdef".into(),
            names: vec!["docker.io/library/busybox:latest".into(), "localhost:5000/app:1".into()],
            size_bytes: 4_260_000,
            config: br#"{"history":[{"created_by":"a"},{"created_by":"b","empty_layer":true}]}"#.to_vec(),
            ..Default::default()
        };
        let rows = super::rows(&image, false);
        assert_eq!((rows[0]["Repository"].as_str(), rows[0]["Tag"].as_str()), (Some("busybox"), Some("latest")));
        assert_eq!((rows[1]["Repository"].as_str(), rows[1]["Tag"].as_str()), (Some("localhost:5000/app"), Some("1")));
        assert_eq!((rows[0]["ID"].as_str(), rows[0]["Size"].as_str()), (Some("0123456789ab"), Some("4.26MB")));
        assert_eq!(history(&image, false, true)[0]["CreatedBy"], "b");
        assert_eq!(at("2026-11-22T03:00:00.5+01:00"), "2026-11-22 02:00:00 +0000 UTC");
        image.names.clear();
        assert_eq!(super::rows(&image, false)[0]["Repository"], NONE);
    }
}
