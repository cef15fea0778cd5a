//! `copy` and `sync`.

use anyhow::Context as _;
use console::Format;
use distribution::copy::{Copy, Origin, Target};
use distribution::layer::Compression;
use distribution::sync::{self, Done, Filter, From, Item, Sync, To};
use distribution::transport::Location;
use distribution::transport::recast::Recast;

use super::{Ground, destination_options, source_options};
use crate::args::{self, Args};
use crate::output::input;

pub fn recast(args: &args::Recast) -> anyhow::Result<Recast> {
    let recast = Recast {
        compression: args.dest_compress_format.as_deref().map(Compression::parse).transpose()?,
        level: args.dest_compress_level,
        format: args.format.as_deref().map(str::parse).transpose()?,
    };
    recast.check()?;
    Ok(recast)
}

pub async fn copy(args: &Args, verb: &args::Copy) -> anyhow::Result<u8> {
    let source: Location = verb.source.parse()?;
    let destination: Location = verb.destination.parse()?;
    let ground = Ground::of(args, &[&source, &destination], Some(&verb.progress))?;
    let wanted = Copy {
        all_platforms: verb.all_platforms,
        platform: verb.platform.clone(),
        recast: recast(&verb.recast)?,
        preserve_digests: verb.preserve_digests,
        referrers: verb.referrers,
        ..Copy::new(
            Origin { location: source, registry: source_options(&verb.registry)? },
            Target {
                location: destination,
                registry: destination_options(&verb.registry)?,
                additional_tags: verb.additional_tag.clone(),
            },
        )
    };
    let digest = distribution::copy::copy(&wanted, ground.place()).await;
    let digest = digest.with_context(|| format!("copy {} to {}", verb.source, verb.destination))?;
    drop(ground);
    if let Some(file) = &verb.digestfile {
        std::fs::write(file, digest.as_str()).with_context(|| format!("write {}", file.display()))?;
    }
    if verb.json {
        console::print_json(&serde_json::json!({
            "source": verb.source, "destination": verb.destination, "digest": digest,
        }))?;
    } else {
        println!("{digest}");
    }
    Ok(0)
}

pub async fn sync(args: &Args, verb: &args::Sync) -> anyhow::Result<u8> {
    let (destination, sources) = verb.places.split_last().context("a source and a destination are needed")?;
    let to: To = destination.parse()?;
    let wanted = Sync {
        registry: destination_options(&verb.registry)?,
        scoped: verb.scoped,
        all_platforms: verb.all_platforms,
        platform: verb.platform.clone(),
        preserve_digests: verb.preserve_digests,
        referrers: verb.referrers,
        to,
    };
    let mut items = Vec::new();
    for source in sources {
        let planned = sync::plan(&from(source, verb)?, &wanted).await;
        items.extend(planned.with_context(|| format!("find the images of {source}"))?);
    }
    let ground = Ground::new(args, wanted.to == To::Store && !verb.dry_run, Some(&verb.progress))?;
    let mut failed = 0;
    for item in &items {
        if verb.dry_run {
            print(item, "would copy", None, verb.format.format)?;
            continue;
        }
        match sync::run(item, &wanted, ground.place()).await {
            Ok(Done::Copied(digest)) => print(item, "copied", Some(digest.as_str()), verb.format.format)?,
            Ok(Done::UpToDate(digest)) => print(item, "up to date", Some(digest.as_str()), verb.format.format)?,
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("copy {}", item.source.location));
                if !verb.keep_going {
                    return Err(error);
                }
                failed += 1;
                print_failed(item, &error, verb.format.format)?;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} images could not be copied", items.len());
    Ok(0)
}

fn from(text: &str, verb: &args::Sync) -> anyhow::Result<From> {
    let filter = Filter::new(verb.tag_regex.as_deref(), verb.tag_exclude.as_deref(), verb.tag_semver.as_deref())?;
    let read = |path: &str| {
        let path = input(path.as_ref());
        std::fs::read_to_string(&path).map_err(|source| distribution::Error::Io { step: "read", path, source })
    };
    Ok(From::read(text, &source_options(&verb.registry)?, &filter, read)?)
}

fn print(item: &Item, state: &str, digest: Option<&str>, format: Format) -> anyhow::Result<()> {
    let (source, destination) = (item.source.location.to_string(), item.destination.to_string());
    match format {
        Format::Json => console::print_json_line(&serde_json::json!({
            "source": source, "destination": destination, "state": state.replace(' ', "_"), "digest": digest,
        })),
        Format::Table => {
            println!("{state}: {source} to {destination}");
            Ok(())
        }
    }
}

fn print_failed(item: &Item, error: &anyhow::Error, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => console::print_json_line(&serde_json::json!({
            "source": item.source.location.to_string(), "destination": item.destination.to_string(),
            "state": "failed", "error": format!("{error:#}"),
        })),
        Format::Table => {
            println!("failed: {error:#}");
            Ok(())
        }
    }
}
