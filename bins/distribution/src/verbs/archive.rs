//! Verbs on files: save, load, import, export.

use std::path::Path;

use anyhow::Context as _;
use console::Format;
use distribution::import::{Import, export_image, export_snapshot};
use distribution::pull::Lease;
use distribution::save::{Load, Save};

use super::store;
use crate::args::{self, Args};
use crate::output::{input, output, reporter};
use crate::view::Image;

pub async fn save(args: &Args, verb: &args::Save) -> anyhow::Result<u8> {
    anyhow::ensure!(!verb.json || verb.output != Path::new("-"), "with --json the archive goes to a file: -o FILE");
    let path = output(&verb.output)?;
    let wanted = Save {
        references: verb.images.clone(),
        path,
        format: verb.format.parse()?,
        referrers: verb.referrers,
        platform: verb.platform.clone(),
    };
    let saved = distribution::save::save(&store(args)?, &wanted, &reporter(&verb.progress)).await;
    let size_bytes = saved.with_context(|| format!("save to {}", verb.output.display()))?;
    if verb.json {
        let result = serde_json::json!({"path": verb.output, "images": verb.images, "size_bytes": size_bytes});
        console::print_json(&result)?;
    }
    Ok(0)
}

pub async fn load(args: &Args, verb: &args::Load) -> anyhow::Result<u8> {
    let given = verb.path.as_deref().or(verb.input.as_deref()).unwrap_or(Path::new("-"));
    let wanted = Load {
        path: input(given),
        referrers: verb.referrers,
        platform: verb.platform.clone(),
        trust: verb.trust.trust_policy.clone(),
    };
    let store = store(args)?;
    let images = distribution::save::load(&store, &wanted, &reporter(&verb.progress)).await;
    let images = images.with_context(|| format!("load {}", given.display()))?;
    if verb.format.format == Format::Json {
        console::print_json(&images.iter().map(|image| Image::of(&store, image)).collect::<Vec<_>>())?;
        return Ok(0);
    }
    for image in images {
        match image.names.as_slice() {
            [] => println!("loaded image id: {}", image.config),
            names => names.iter().for_each(|name| println!("loaded image: {name}")),
        }
    }
    Ok(0)
}

pub async fn import(args: &Args, verb: &args::Import) -> anyhow::Result<u8> {
    let store = store(args)?;
    let lease = Lease::of(&store, None).await?;
    let wanted = Import {
        path: input(&verb.file),
        reference: verb.reference.clone().unwrap_or_default(),
        changes: verb.change.clone(),
        message: verb.message.clone(),
        platform: verb.platform.clone(),
        lease: String::new(),
    };
    let image = distribution::import::import(&store, &wanted, lease.id(), &reporter(&verb.progress));
    let image = image.with_context(|| format!("import {}", verb.file.display()))?;
    match verb.format.format {
        Format::Json => console::print_json(&Image::of(&store, &image))?,
        Format::Table => println!("{}", image.config),
    }
    Ok(0)
}

pub fn export(args: &Args, name: &str, snapshot: bool, path: &Path, format: Format) -> anyhow::Result<u8> {
    let json = format == Format::Json;
    anyhow::ensure!(!json || path != Path::new("-"), "with --format json the tar goes to a file: -o FILE");
    let (store, to) = (store(args)?, output(path)?);
    let exported = if snapshot { export_snapshot(&store, name, &to) } else { export_image(&store, name, &to) };
    let size_bytes = exported.with_context(|| format!("export {name}"))?;
    if json {
        console::print_json(&serde_json::json!({"path": path, "size_bytes": size_bytes}))?;
    }
    Ok(0)
}
