//! Verbs that make images of others.

use anyhow::Context as _;
use console::Format;
use distribution::copy::{Origin, Target};
use distribution::flatten::Flatten;
use distribution::layer::Compression;
use distribution::mutate::Mutate;
use distribution::rebase::Rebase;
use distribution::transport::Location;
use oci::Digest;

use super::{Ground, destination_options, pairs, source_options};
use crate::args::{self, Args};

/// The two ends of such a verb.
fn ends(make: &args::Make) -> anyhow::Result<(Origin, Target)> {
    let source = Origin { location: Location::or_stored(&make.source)?, registry: source_options(&make.registry)? };
    let destination = Target {
        location: Location::or_stored(&make.destination)?,
        registry: destination_options(&make.registry)?,
        additional_tags: Vec::new(),
    };
    Ok((source, destination))
}

fn print(make: &args::Make, digest: &Digest) -> anyhow::Result<u8> {
    match make.format.format {
        Format::Json => console::print_json(&serde_json::json!({
            "source": make.source, "destination": make.destination, "digest": digest,
        }))?,
        Format::Table => println!("{digest}"),
    }
    Ok(0)
}

pub async fn flatten(args: &Args, verb: &args::Flatten) -> anyhow::Result<u8> {
    let (source, destination) = ends(&verb.make)?;
    let platform = verb.make.platform.clone();
    let wanted = Flatten { source, destination, platform, compression: Compression::parse(&verb.compression)? };
    let store = super::store(args)?;
    let ground = Ground::new(args, true, Some(&verb.make.progress))?;
    let digest = distribution::flatten::flatten(&wanted, &store, ground.place()).await;
    let digest = digest.with_context(|| format!("flatten {}", verb.make.source))?;
    drop(ground);
    print(&verb.make, &digest)
}

pub async fn rebase(args: &Args, verb: &args::Rebase) -> anyhow::Result<u8> {
    let (source, destination) = ends(&verb.make)?;
    let registry = source.registry.clone();
    let base = |text: &Option<String>| -> anyhow::Result<Option<Origin>> {
        let location = text.as_deref().map(Location::or_stored).transpose()?;
        Ok(location.map(|location| Origin { location, registry: registry.clone() }))
    };
    let (old_base, new_base) = (base(&verb.old_base)?, base(&verb.new_base)?);
    let bases = [&old_base, &new_base].into_iter().flatten().map(|origin| &origin.location);
    let locations: Vec<&Location> = bases.chain([&source.location, &destination.location]).collect();
    let ground = Ground::of(args, &locations, Some(&verb.make.progress))?;
    let wanted = Rebase {
        source: source.clone(),
        old_base: old_base.clone(),
        new_base: new_base.clone(),
        destination: destination.clone(),
        platform: verb.make.platform.clone(),
    };
    let digest = distribution::rebase::rebase(&wanted, ground.place()).await;
    let digest = digest.with_context(|| format!("rebase {}", verb.make.source))?;
    drop(ground);
    print(&verb.make, &digest)
}

pub async fn mutate(args: &Args, verb: &args::Mutate) -> anyhow::Result<u8> {
    let (source, destination) = ends(&verb.make)?;
    let ground = Ground::of(args, &[&source.location, &destination.location], Some(&verb.make.progress))?;
    let wanted = Mutate {
        source,
        destination,
        platform: verb.make.platform.clone(),
        changes: verb.change.clone(),
        annotations: pairs(&verb.annotation)?,
        append: verb.append.clone(),
        created: verb.created.clone(),
    };
    let digest = distribution::mutate::mutate(&wanted, ground.place()).await;
    let digest = digest.with_context(|| format!("change {}", verb.make.source))?;
    drop(ground);
    print(&verb.make, &digest)
}
