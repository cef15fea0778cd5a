//! Verbs that only read: `inspect`, `digest`, `history`, `diff`.

use std::io::Write as _;

use anyhow::Context as _;
use console::{Format, Table, Template};
use distribution::copy::{Look, Origin, look, open, open_image};
use distribution::image;
use distribution::transport::Location;
use oci::{ImageConfig, Platform};

use super::{Ground, registry_options, store};
use crate::args::{self, Args};
use crate::view::Image;

pub async fn inspect(args: &Args, verb: &args::Inspect) -> anyhow::Result<u8> {
    let location = Location::or_stored(&verb.image)?;
    if let Location::Store(name) = &location
        && !verb.image.starts_with("store:")
    {
        return inspect_stored(args, verb, name);
    }
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(&verb.registry)? };
    let source = match (&origin.location, &verb.platform) {
        (Location::Store(_), Some(_)) => open_image(&origin, verb.platform.as_ref(), ground.place()).await,
        _ => open(&origin, true, ground.place()).await,
    };
    let source = source.with_context(|| format!("inspect {}", verb.image))?;
    if verb.raw {
        let root = match &verb.platform {
            None => source.root().await,
            Some(platform) => look(source.as_ref(), platform).await.map(|look| look.raw),
        };
        let root = root.with_context(|| format!("inspect {}", verb.image))?;
        std::io::stdout().write_all(&root.bytes)?;
        return Ok(0);
    }
    let platform = verb.platform.clone().unwrap_or_else(Platform::host);
    let view = look(source.as_ref(), &platform).await.with_context(|| format!("inspect {}", verb.image))?;
    if verb.config {
        std::io::stdout().write_all(&view.config)?;
        return Ok(0);
    }
    print(&document(&source.describe(), &view), verb.format.as_deref())
}

fn document(name: &str, view: &Look) -> serde_json::Value {
    let config: serde_json::Value = serde_json::from_slice(&view.config).unwrap_or_default();
    let index: Option<oci::manifest::Index> = match oci::media_type::is_index(&view.root.media_type) {
        true => serde_json::from_slice(&view.root.bytes).ok(),
        false => None,
    };
    let platforms: Vec<String> = index
        .iter()
        .flat_map(|index| &index.manifests)
        .filter_map(|m| Some(m.platform.as_ref()?.to_string()))
        .collect();
    serde_json::json!({
        "name": name,
        "digest": view.root.digest.to_string(),
        "media_type": view.root.media_type,
        "manifest_digest": view.descriptor.digest.to_string(),
        "platforms": platforms,
        "artifact_type": view.manifest.artifact_type,
        "created": config.get("created"),
        "os": config.get("os"),
        "architecture": config.get("architecture"),
        "labels": config.pointer("/config/Labels"),
        "env": config.pointer("/config/Env"),
        "size_bytes": view.manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "layers": view.manifest.layers,
        "subject": view.manifest.subject,
        "annotations": view.manifest.annotations,
        "config": config,
    })
}

fn inspect_stored(args: &Args, verb: &args::Inspect, name: &str) -> anyhow::Result<u8> {
    let store = store(args)?;
    let (mut record, _) = image::find(&store, name)?;
    let mut root = record.target.digest.clone();
    if let Some(platform) = &verb.platform {
        record = image::variant(&store, &record, platform, name)?;
        root = record.manifest.digest.clone();
    }
    if verb.raw {
        let bytes = store.content().read(&root, distribution::registry::MANIFEST_MAX)?;
        std::io::stdout().write_all(&bytes)?;
    } else if verb.config {
        std::io::stdout().write_all(&image::raw_config(&store, &record)?)?;
    } else {
        print(&serde_json::to_value(Image::of(&store, &record))?, verb.format.as_deref())?;
    }
    Ok(0)
}

/// A document as indented JSON, as one line, or through a template.
pub fn print(document: &serde_json::Value, format: Option<&str>) -> anyhow::Result<u8> {
    match format {
        None | Some("") => console::print_json(document)?,
        Some("json") => console::print_json_line(document)?,
        Some(template) => println!("{}", Template::parse(template)?.render(document)?),
    }
    Ok(0)
}

pub async fn digest(args: &Args, verb: &args::Digest) -> anyhow::Result<u8> {
    let location = Location::or_remote(&verb.image)?;
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(&verb.registry)? };
    let digest = distribution::copy::digest(&origin, verb.platform.as_ref(), ground.place()).await;
    let digest = digest.with_context(|| format!("find the digest of {}", verb.image))?;
    let name = match &origin.location {
        Location::Registry(reference) => reference.name(),
        other => other.to_string(),
    };
    match verb.format.format {
        Format::Json => console::print_json(&serde_json::json!({"name": name, "digest": digest}))?,
        Format::Table if verb.full_ref => println!("{name}@{digest}"),
        Format::Table => println!("{digest}"),
    }
    Ok(0)
}

pub async fn history(args: &Args, verb: &args::History) -> anyhow::Result<u8> {
    let location = Location::or_stored(&verb.image)?;
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(&verb.registry)? };
    let source = open_image(&origin, verb.platform.as_ref(), ground.place()).await?;
    let platform = verb.platform.clone().unwrap_or_else(Platform::host);
    let view = look(source.as_ref(), &platform).await.with_context(|| format!("look at {}", verb.image))?;
    let config: ImageConfig = serde_json::from_slice(&view.config).context("read the image's config")?;
    let mut sizes = view.manifest.layers.iter();
    let mut steps: Vec<serde_json::Value> = Vec::new();
    for step in &config.history {
        let layer = if step.empty_layer { None } else { sizes.next() };
        steps.push(serde_json::json!({
            "created": step.created, "created_by": step.created_by, "comment": step.comment, "author": step.author,
            "empty_layer": step.empty_layer, "digest": layer.map(|layer| &layer.digest),
            "size_bytes": layer.map_or(0, |layer| layer.size),
        }));
    }
    steps.reverse();
    if verb.format.format == Format::Json {
        console::print_json(&steps)?;
        return Ok(0);
    }
    let mut table = Table::new(["CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for step in &steps {
        let text = |key: &str| step[key].as_str().unwrap_or_default().replace('\n', " ");
        let mut by = text("created_by");
        if !verb.no_trunc && by.chars().count() > 45 {
            by = by.chars().take(44).chain(['…']).collect();
        }
        let size = console::human_size(step["size_bytes"].as_u64().unwrap_or_default());
        table.row([console::human_ago(&text("created")), by, size, text("comment")]);
    }
    table.print()?;
    Ok(0)
}

pub async fn diff(args: &Args, verb: &args::Diff) -> anyhow::Result<u8> {
    let store = store(args)?;
    let changes = match &verb.new {
        None => store.snapshots().diff(&verb.old)?,
        Some(new) => {
            let changes = distribution::difference::difference(&store, &verb.old, new).await;
            changes.with_context(|| format!("compare {} with {new}", verb.old))?
        }
    };
    super::snapshot::print_changes(&changes, verb.format.format)
}
