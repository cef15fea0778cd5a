//! Verbs on files: save, load, import, export.

use std::path::Path;

use anyhow::Context as _;
use distribution::import::{Import, export_image, export_snapshot};
use distribution::pull::Lease;

use super::store;
use crate::args::{self, Args};
use crate::output::{input, output, reporter};

pub async fn save(args: &Args, verb: &args::Save) -> anyhow::Result<u8> {
    let path = output(&verb.output)?;
    let format = verb.format.parse()?;
    let store = store(args)?;
    let saved = distribution::save::save(&store, &verb.images, &path, format, &reporter(&verb.progress)).await;
    saved.with_context(|| format!("save to {}", verb.output.display()))?;
    Ok(0)
}

pub async fn load(args: &Args, path: &Path, progress: &args::Progress) -> anyhow::Result<u8> {
    let store = store(args)?;
    let images = distribution::save::load(&store, &input(path), &reporter(progress)).await;
    for image in images.with_context(|| format!("load {}", path.display()))? {
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
    println!("{}", image.config);
    Ok(0)
}

pub fn export(args: &Args, name: &str, snapshot: bool, path: &Path) -> anyhow::Result<u8> {
    let (store, path) = (store(args)?, output(path)?);
    let exported = if snapshot { export_snapshot(&store, name, &path) } else { export_image(&store, name, &path) };
    exported.with_context(|| format!("export {name}"))?;
    Ok(0)
}
