//! `artifact`: files in registries and layouts.

use anyhow::Context as _;
use console::{Format, Table, human_size};
use distribution::artifact::{self, Input, Referrer, TITLE};
use distribution::copy::{Origin, Target};
use distribution::transport::Location;

use super::{Ground, pairs, registry_options};
use crate::args::{self, Args, Artifact};

pub async fn run(args: &Args, verb: &Artifact) -> anyhow::Result<u8> {
    match verb {
        Artifact::Push(verb) => push(args, verb, false).await,
        Artifact::Attach(verb) => push(args, verb, true).await,
        Artifact::Pull { .. } => pull(args, verb).await,
        Artifact::Discover { .. } => discover(args, verb).await,
        Artifact::Ls { artifact, registry, format } => ls(args, artifact, registry, format.format).await,
    }
}

async fn push(args: &Args, verb: &args::ArtifactPush, attach: bool) -> anyhow::Result<u8> {
    let location = Location::or_remote(&verb.name)?;
    let ground = Ground::of(args, &[&location], Some(&verb.progress))?;
    let registry = registry_options(&verb.registry)?;
    let wanted = artifact::Push {
        files: verb.files.iter().map(|text| Input::read(text)).collect(),
        artifact_type: verb.artifact_type.clone(),
        annotations: pairs(&verb.annotation)?,
        config: verb.config.as_deref().map(Input::read),
        destination: Target { location, registry, additional_tags: Vec::new() },
        attach,
        platform: verb.platform.clone(),
    };
    let pushed = artifact::push(&wanted, ground.place()).await;
    let pushed = pushed.with_context(|| format!("push the artifact to {}", verb.name))?;
    drop(ground);
    match verb.format.format {
        Format::Json => console::print_json(&pushed)?,
        Format::Table => println!("{}", pushed.digest),
    }
    Ok(0)
}

async fn pull(args: &Args, verb: &Artifact) -> anyhow::Result<u8> {
    let Artifact::Pull { artifact: name, output, force, registry, progress, format } = verb else { return Ok(2) };
    let location = Location::or_remote(name)?;
    let ground = Ground::of(args, &[&location], Some(progress))?;
    let origin = Origin { location, registry: registry_options(registry)? };
    let pulled = artifact::pull(&origin, output, *force, ground.place()).await;
    let pulled = pulled.with_context(|| format!("pull the artifact {name}"))?;
    drop(ground);
    if format.format == Format::Json {
        console::print_json(&serde_json::json!({
            "digest": pulled.digest, "files": pulled.written, "skipped": pulled.skipped,
        }))?;
        return Ok(0);
    }
    pulled.written.iter().for_each(|path| println!("{}", path.display()));
    pulled.skipped.iter().for_each(|digest| eprintln!("{digest} has no title: left out"));
    Ok(0)
}

async fn discover(args: &Args, verb: &Artifact) -> anyhow::Result<u8> {
    let Artifact::Discover { image, artifact_type, platform, registry, format } = verb else { return Ok(2) };
    let location = Location::or_remote(image)?;
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(registry)? };
    let found = artifact::discover(&origin, artifact_type.as_deref(), platform.as_ref(), ground.place()).await;
    let (root, found) = found.with_context(|| format!("find what refers to {image}"))?;
    if format.format == Format::Json {
        let referrers: Vec<_> = found.iter().map(tree).collect();
        console::print_json(&serde_json::json!({"subject": root, "referrers": referrers}))?;
        return Ok(0);
    }
    let mut table = Table::new(["DIGEST", "TYPE", "SIZE", "ANNOTATIONS"]);
    rows(&mut table, &found, 0);
    println!("{}", root.digest);
    table.print()?;
    Ok(0)
}

fn tree(referrer: &Referrer) -> serde_json::Value {
    let below: Vec<_> = referrer.referrers.iter().map(tree).collect();
    let mut value = serde_json::to_value(&referrer.descriptor).unwrap_or_default();
    value["referrers"] = below.into();
    value
}

fn rows(table: &mut Table, found: &[Referrer], depth: usize) {
    for Referrer { descriptor, referrers } in found {
        let pairs: Vec<String> = descriptor.annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            format!("{}{}", "  ".repeat(depth), descriptor.digest),
            descriptor.artifact_type.clone().unwrap_or_default(),
            human_size(descriptor.size),
            pairs.join(" "),
        ]);
        rows(table, referrers, depth + 1);
    }
}

async fn ls(args: &Args, name: &str, registry: &args::Registry, format: Format) -> anyhow::Result<u8> {
    let location = Location::or_remote(name)?;
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(registry)? };
    let shown = artifact::show(&origin, ground.place()).await;
    let (raw, manifest) = shown.with_context(|| format!("look at the artifact {name}"))?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({
            "digest": raw.digest, "artifact_type": manifest.artifact_type, "config": manifest.config,
            "files": manifest.layers, "subject": manifest.subject, "annotations": manifest.annotations,
        }))?;
        return Ok(0);
    }
    let mut table = Table::new(["TITLE", "TYPE", "SIZE", "DIGEST"]);
    for layer in &manifest.layers {
        let title = layer.annotations.get(TITLE).cloned().unwrap_or_default();
        table.row([title, layer.media_type.clone(), human_size(layer.size), layer.digest.to_string()]);
    }
    table.print()?;
    Ok(0)
}
