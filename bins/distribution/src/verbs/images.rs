//! Verbs on the images of the store.

use anyhow::Context as _;
use console::{Format, Table};
use distribution::image;

use super::{filters, store};
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
    let mut titles: Vec<String> = ["REPOSITORY", "TAG", "ID", "PLATFORM", "CREATED", "SIZE"].map(String::from).into();
    if verb.digests {
        titles.insert(2, "DIGEST".into());
    }
    let mut table = Table::with_titles(&titles);
    for image in &images {
        let none = vec![String::from("<none>")];
        for name in if image.names.is_empty() { &none } else { &image.names } {
            let (repository, tag) = familiar(name);
            let size = console::human_size(image::size_on_disk(&store, image));
            let id = if verb.no_trunc { image.config.as_str() } else { image.config.short() };
            let created = console::human_ago(&image.created_at);
            let mut row = vec![repository, tag, id.into(), image.platform.to_string(), created, size];
            if verb.digests {
                row.insert(2, image.target.digest.to_string());
            }
            table.row(row);
        }
    }
    table.print()?;
    Ok(0)
}

pub fn tag(args: &Args, source: &str, target: &str, format: Format) -> anyhow::Result<u8> {
    image::tag(&store(args)?, source, target)?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({"source": source, "target": target}))?;
    }
    Ok(0)
}

pub fn rm(
    args: &Args,
    images: &[String],
    force: bool,
    platform: Option<&oci::Platform>,
    format: Format,
) -> anyhow::Result<u8> {
    let store = store(args)?;
    let mut all = image::Removed::default();
    let mut failed: Option<anyhow::Error> = None;
    for name in images {
        let removed = match platform {
            Some(platform) => image::remove_platform(&store, name, platform, force),
            None => image::remove(&store, name, force),
        };
        let removed = match removed.with_context(|| format!("remove {name}")) {
            Ok(removed) => removed,
            // One that cannot go does not keep the others.
            Err(error) => {
                failed.replace(error).iter().for_each(|earlier| eprintln!("Error: {earlier:#}"));
                continue;
            }
        };
        if format == Format::Table {
            print_removed(&removed);
        }
        distribution::gc::automatic::after_removal(&store, removed.released)?;
        all.untagged.extend(removed.untagged);
        all.deleted.extend(removed.deleted);
    }
    if format == Format::Json {
        console::print_json(&serde_json::json!({"untagged": all.untagged, "deleted": all.deleted}))?;
    }
    failed.map_or(Ok(0), Err)
}

pub fn prune(args: &Args, all: bool, given: &[String], format: Format) -> anyhow::Result<u8> {
    let store = store(args)?;
    let removed = image::prune(&store, all, &filters(given)?)?;
    let report = distribution::gc::collect(&store, false)?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({
            "untagged": removed.untagged, "deleted": removed.deleted, "reclaimed_bytes": report.reclaimed_bytes,
        }))?;
        return Ok(0);
    }
    print_removed(&removed);
    println!("reclaimed: {}", console::human_size(report.reclaimed_bytes));
    Ok(0)
}

fn print_removed(removed: &image::Removed) {
    removed.untagged.iter().for_each(|name| println!("untagged: {name}"));
    removed.deleted.iter().for_each(|id| println!("deleted: {id}"));
}

pub async fn events(args: &Args, since: u64, no_follow: bool, format: Format) -> anyhow::Result<u8> {
    let journal = distribution::events::Journal::open(store(args)?.root());
    let from = distribution::events::now().saturating_sub(i64::try_from(since)?.saturating_mul(1_000_000_000));
    let mut follow = journal.follow(from)?;
    loop {
        for event in follow.read()? {
            match format {
                Format::Json => console::print_json_line(&event)?,
                Format::Table => print_event(&event),
            }
        }
        if no_follow {
            return Ok(0);
        }
        follow.changed().await?;
    }
}

fn print_event(event: &distribution::events::Event) {
    let name = event.attributes.get("name").map_or("", String::as_str);
    println!("{} {} {} {} {name}", event.time_unix_nano, event.kind, event.action, event.id);
}
