//! `manifest`: indexes that are put together.

use anyhow::Context as _;
use console::{Format, Table};
use distribution::Store;
use distribution::copy::{Origin, Target};
use distribution::index::{Annotate, Begun, Draft, Drafts, additions, push};
use distribution::transport::Location;
use oci::Platform;

use super::{Ground, destination_options, pairs, registry_options, source_options, store};
use crate::args::{self, Args, Manifest};

pub async fn run(args: &Args, verb: &Manifest) -> anyhow::Result<u8> {
    match verb {
        Manifest::Create { name, images, platform, annotation, amend, replace, registry, format } => {
            let store = store(args)?;
            // Everything is found before the index is begun.
            let found = find(args, images, platform, registry).await?;
            let begun = match (amend, replace) {
                (true, _) => Begun::GoOn,
                (_, true) => Begun::Replace,
                _ => Begun::Refuse,
            };
            Drafts(&store).create(name, pairs(annotation)?, begun)?;
            change(&store, name, format.format, |draft| draft.add(found))
        }
        Manifest::Add { name, images, platform, registry, format } => {
            let store = store(args)?;
            Drafts(&store).get(name)?;
            let found = find(args, images, platform, registry).await?;
            change(&store, name, format.format, |draft| draft.add(found))
        }
        Manifest::Annotate(verb) => annotate(args, verb),
        Manifest::Remove { name, images, format } => {
            let draft =
                Drafts(&store(args)?).change(name, |draft| images.iter().try_for_each(|image| draft.remove(image)))?;
            print(&draft, format.format)
        }
        Manifest::Inspect { name, registry } => inspect(args, name, registry).await,
        Manifest::Push { .. } => send(args, verb).await,
        Manifest::Rm { names, format } => {
            let store = store(args)?;
            names.iter().try_for_each(|name| Drafts(&store).remove(name))?;
            if format.format == Format::Json {
                console::print_json(&serde_json::json!({"removed": names}))?;
            }
            Ok(0)
        }
        Manifest::Ls { format } => ls(args, format.format),
    }
}

async fn find(
    args: &Args,
    images: &[String],
    platforms: &[Platform],
    registry: &args::Registry,
) -> anyhow::Result<Vec<distribution::index::Addition>> {
    let ground = Ground::new(args, true, None)?;
    let mut found = Vec::new();
    for image in images {
        let origin = Origin { location: Location::or_remote(image)?, registry: registry_options(registry)? };
        let added = additions(&origin, image, platforms, ground.place()).await;
        found.extend(added.with_context(|| format!("look at {image}"))?);
    }
    Ok(found)
}

fn change(store: &Store, name: &str, format: Format, edit: impl FnOnce(&mut Draft)) -> anyhow::Result<u8> {
    let draft = Drafts(store).change(name, |draft| {
        edit(draft);
        Ok(())
    })?;
    print(&draft, format)
}

fn annotate(args: &Args, verb: &args::Annotate) -> anyhow::Result<u8> {
    let new = Annotate {
        os: verb.os.clone(),
        architecture: verb.arch.clone(),
        variant: verb.variant.clone(),
        os_version: verb.os_version.clone(),
        os_features: verb.os_features.clone(),
        annotations: pairs(&verb.annotation)?,
    };
    let draft = Drafts(&store(args)?).change(&verb.name, |draft| draft.annotate(verb.image.as_deref(), new))?;
    print(&draft, verb.format.format)
}

fn print(draft: &Draft, format: Format) -> anyhow::Result<u8> {
    match format {
        Format::Json => console::print_json(draft)?,
        Format::Table => println!("{}", draft.name),
    }
    Ok(0)
}

async fn inspect(args: &Args, name: &str, registry: &args::Registry) -> anyhow::Result<u8> {
    let location = Location::or_remote(name)?;
    if let Location::Registry(_) = &location
        && !name.starts_with("docker://")
        && let Ok(draft) = Drafts(&store(args)?).get(name)
    {
        console::print_json(&draft.index)?;
        return Ok(0);
    }
    let ground = Ground::of(args, &[&location], None)?;
    let origin = Origin { location, registry: registry_options(registry)? };
    let source = distribution::copy::open(&origin, true, ground.place()).await?;
    let root = source.root().await.with_context(|| format!("inspect {name}"))?;
    console::print_json(&serde_json::from_slice::<serde_json::Value>(&root.bytes)?)?;
    Ok(0)
}

async fn send(args: &Args, verb: &Manifest) -> anyhow::Result<u8> {
    let Manifest::Push { name, destination, rm, recast, additional_tag, json, registry, progress } = verb else {
        return Ok(2);
    };
    let store = store(args)?;
    let draft = Drafts(&store).get(name)?;
    let to = Target {
        location: Location::or_remote(destination.as_deref().unwrap_or(&draft.name))?,
        registry: destination_options(registry)?,
        additional_tags: additional_tag.clone(),
    };
    let ground = Ground::new(args, true, Some(progress))?;
    let how = super::copy::recast(recast)?;
    let digest = push(&draft, &source_options(registry)?, &to, how, ground.place()).await;
    let digest = digest.with_context(|| format!("push {name}"))?;
    drop(ground);
    if *rm {
        Drafts(&store).remove(name)?;
    }
    if *json {
        console::print_json(&serde_json::json!({"destination": to.location.to_string(), "digest": digest}))?;
    } else {
        println!("{digest}");
    }
    Ok(0)
}

fn ls(args: &Args, format: Format) -> anyhow::Result<u8> {
    let drafts = Drafts(&store(args)?).list()?;
    if format == Format::Json {
        console::print_json(&drafts)?;
        return Ok(0);
    }
    let mut table = Table::new(["NAME", "IMAGES", "PLATFORMS"]);
    for draft in &drafts {
        let platforms: Vec<String> =
            draft.index.manifests.iter().filter_map(|m| Some(m.platform.as_ref()?.to_string())).collect();
        table.row([draft.name.clone(), draft.index.manifests.len().to_string(), platforms.join(", ")]);
    }
    table.print()?;
    Ok(0)
}
