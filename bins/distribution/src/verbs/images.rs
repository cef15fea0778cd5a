//! Verbs on the images of the store.

use std::io::Write as _;

use anyhow::Context as _;
use console::{Format, Table};
use distribution::copy::{Copy, source};
use distribution::image;
use distribution::transport::Location;

use super::{filters, registry_options, store};
use crate::args::{self, Args};
use crate::view::{Image, familiar};

pub fn ls(args: &Args, verb: &args::Ls) -> anyhow::Result<u8> {
    let store = store(args)?;
    let mut filters = filters(&verb.filter)?;
    if let Some(pattern) = &verb.pattern {
        filters.entry("reference".into()).or_default().push(pattern.clone());
    }
    let images = image::list(&store, &filters)?;
    if verb.quiet {
        let mut ids: Vec<&str> = images.iter().map(|image| image.config.short()).collect();
        ids.dedup();
        ids.iter().for_each(|id| println!("{id}"));
        return Ok(0);
    }
    if verb.format.format == Format::Json {
        let views: Vec<Image> = images.iter().map(|image| Image::of(&store, image)).collect();
        console::print_json(&views)?;
        return Ok(0);
    }
    let mut table = Table::new(["REPOSITORY", "TAG", "ID", "PLATFORM", "CREATED", "SIZE"]);
    for image in &images {
        let none = vec![String::from("<none>")];
        for name in if image.names.is_empty() { &none } else { &image.names } {
            let (repository, tag) = familiar(name);
            let size = console::human_size(image::size_on_disk(&store, image));
            table.row([
                repository,
                tag,
                image.config.short().into(),
                image.platform.to_string(),
                console::human_ago(&image.created_at),
                size,
            ]);
        }
    }
    table.print()?;
    Ok(0)
}

pub async fn inspect(args: &Args, verb: &args::Inspect) -> anyhow::Result<u8> {
    let remote = verb.image.parse::<Location>().ok();
    let Some(location) = remote else { return inspect_stored(args, verb) };
    let options = registry_options(&verb.registry, None)?;
    let wanted = Copy {
        destination: location.clone(),
        source: location,
        source_registry: options.clone(),
        destination_registry: options,
        all_platforms: true,
        platform: verb.platform.clone(),
    };
    let store = wanted.needs_store().then(|| store(args)).transpose()?;
    let source = source(&wanted, store.as_ref(), &std::env::temp_dir()).await?;
    let platform = verb.platform.clone().unwrap_or_else(oci::Platform::host);
    if verb.raw {
        let root = source.root().await.with_context(|| format!("inspect {}", verb.image))?;
        std::io::stdout().write_all(&root.bytes)?;
        return Ok(0);
    }
    let view = distribution::copy::look(source.as_ref(), &platform).await;
    let view = view.with_context(|| format!("inspect {}", verb.image))?;
    if verb.config {
        std::io::stdout().write_all(&view.config)?;
        return Ok(0);
    }
    let config: serde_json::Value = serde_json::from_slice(&view.config).unwrap_or_default();
    console::print_json(&serde_json::json!({
        "name": source.describe(),
        "digest": view.root.digest.to_string(),
        "media_type": view.root.media_type,
        "manifest_digest": view.descriptor.digest.to_string(),
        "layers": view.manifest.layers,
        "annotations": view.manifest.annotations,
        "config": config,
    }))?;
    Ok(0)
}

fn inspect_stored(args: &Args, verb: &args::Inspect) -> anyhow::Result<u8> {
    let store = store(args)?;
    let (record, _) = image::find(&store, &verb.image)?;
    if verb.raw {
        let bytes = store.content().read(&record.target.digest, distribution::registry::MANIFEST_MAX)?;
        std::io::stdout().write_all(&bytes)?;
    } else if verb.config {
        std::io::stdout().write_all(&image::raw_config(&store, &record)?)?;
    } else {
        console::print_json(&Image::of(&store, &record))?;
    }
    Ok(0)
}

pub fn tag(args: &Args, source: &str, target: &str) -> anyhow::Result<u8> {
    image::tag(&store(args)?, source, target)?;
    Ok(0)
}

pub fn rm(args: &Args, images: &[String], force: bool) -> anyhow::Result<u8> {
    let store = store(args)?;
    for name in images {
        let removed = image::remove(&store, name, force).with_context(|| format!("remove {name}"))?;
        print_removed(&removed);
        distribution::gc::automatic::after_removal(&store, removed.released)?;
    }
    Ok(0)
}

pub fn prune(args: &Args, all: bool, given: &[String]) -> anyhow::Result<u8> {
    let store = store(args)?;
    print_removed(&image::prune(&store, all, &filters(given)?)?);
    let report = distribution::gc::collect(&store, false)?;
    println!("reclaimed: {}", console::human_size(report.reclaimed_bytes));
    Ok(0)
}

fn print_removed(removed: &image::Removed) {
    removed.untagged.iter().for_each(|name| println!("untagged: {name}"));
    removed.deleted.iter().for_each(|id| println!("deleted: {id}"));
}

pub async fn events(args: &Args, since: u64, no_follow: bool) -> anyhow::Result<u8> {
    let journal = distribution::events::Journal::open(store(args)?.root());
    let from = distribution::events::now().saturating_sub(i64::try_from(since)?.saturating_mul(1_000_000_000));
    let mut follow = journal.follow(from)?;
    loop {
        for event in follow.read()? {
            console::print_json_line(&event)?;
        }
        if no_follow {
            return Ok(0);
        }
        follow.changed().await?;
    }
}
