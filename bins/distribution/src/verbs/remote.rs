//! Verbs that talk to a registry.

use std::io::Read as _;

use anyhow::Context as _;
use console::{Format, Table};
use distribution::delete::Deleted;
use distribution::image::parse;
use distribution::pull::Pull;
use distribution::push::Push;
use distribution::registry::{Credentials, Registry, credentials};
use distribution::search;

use super::{login_file, registry_options, store};
use crate::args::{self, Args};
use crate::output::reporter;
use crate::view::Image;

/// A name at a registry, also with skopeo's `docker://` before it.
fn named(text: &str) -> distribution::Result<oci::Reference> {
    parse(text.strip_prefix("docker://").unwrap_or(text))
}

pub async fn pull(args: &Args, verb: &args::Pull) -> anyhow::Result<u8> {
    let wanted = Pull {
        reference: named(&verb.reference)?,
        platform: verb.platform.clone(),
        registry: registry_options(&verb.registry)?,
        all_platforms: verb.all_platforms,
        no_unpack: verb.no_unpack,
        policy: verb.policy.parse()?,
        lease: None,
        referrers: verb.referrers,
    };
    let store = store(args)?;
    let reporter = reporter(&verb.progress);
    let pulled = distribution::pull::pull(&store, &wanted, &reporter).await;
    let pulled = pulled.with_context(|| format!("pull {}", wanted.reference))?;
    drop(reporter);
    match verb.format.format {
        Format::Json => console::print_json(&Image::of(&store, &pulled.image))?,
        Format::Table if verb.progress.quiet => println!("{}", pulled.image.config),
        Format::Table => println!("{}@{}", wanted.reference.name(), pulled.digest),
    }
    Ok(0)
}

pub async fn push(args: &Args, verb: &args::Push) -> anyhow::Result<u8> {
    let wanted = Push {
        reference: verb.reference.clone(),
        destination: verb.destination.as_deref().map(named).transpose()?,
        registry: registry_options(&verb.registry)?,
        all_platforms: verb.all_platforms,
        referrers: verb.referrers,
    };
    let store = store(args)?;
    let pushed = distribution::push::push(&store, &wanted, &reporter(&verb.progress)).await;
    let pushed = pushed.with_context(|| format!("push {}", verb.reference))?;
    match verb.format.format {
        Format::Json => console::print_json(&serde_json::json!({
            "digest": pushed.digest.to_string(), "size_bytes": pushed.size_bytes,
        }))?,
        Format::Table => {
            let name = wanted.destination.map_or_else(|| parse(&verb.reference), Ok)?.name();
            println!("{name}@{}", pushed.digest);
        }
    }
    Ok(0)
}

pub async fn tags(verb: &args::Tags) -> anyhow::Result<u8> {
    let reference = named(&verb.repository)?;
    let registry = Registry::open(reference.registry(), &registry_options(&verb.registry)?).await;
    let registry = registry.map_err(distribution::Error::from)?;
    let mut tags = registry.tags(reference.repository()).await.map_err(distribution::Error::from)?;
    tags.sort();
    match verb.format.format {
        Format::Json => console::print_json(&tags)?,
        Format::Table => tags.iter().for_each(|tag| println!("{tag}")),
    }
    Ok(0)
}

pub async fn catalog(name: &str, options: &args::Registry, format: Format) -> anyhow::Result<u8> {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    let registry = Registry::open(name, &registry_options(options)?).await.map_err(distribution::Error::from)?;
    let mut repositories = registry.catalog().await.map_err(distribution::Error::from)?;
    repositories.sort();
    match format {
        Format::Json => console::print_json(&repositories)?,
        Format::Table => repositories.iter().for_each(|repository| println!("{repository}")),
    }
    Ok(0)
}

pub async fn search(verb: &args::Search) -> anyhow::Result<u8> {
    let filters = search::Filters::parse(&super::filters(&verb.filter)?)?;
    let found = search::search(&verb.term, verb.limit, &filters, &registry_options(&verb.registry)?).await;
    let found = found.with_context(|| format!("search for {}", verb.term))?;
    if verb.format.format == Format::Json {
        console::print_json(&found)?;
        return Ok(0);
    }
    let mut table = Table::new(["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    for one in found {
        let description = if verb.no_trunc { one.line() } else { one.short() };
        let official = if one.official { "[OK]" } else { "" };
        table.row([one.name, description, one.stars.to_string(), official.to_owned()]);
    }
    table.print()?;
    Ok(0)
}

pub async fn delete(image: &str, manifest: bool, options: &args::Registry, format: Format) -> anyhow::Result<u8> {
    let reference = named(image)?;
    let deleted = distribution::delete::delete(&reference, manifest, &registry_options(options)?).await;
    match (deleted.with_context(|| format!("delete {reference}"))?, format) {
        (Deleted::Tag(tag), Format::Json) => console::print_json(&serde_json::json!({"tag": tag}))?,
        (Deleted::Manifest(digest), Format::Json) => console::print_json(&serde_json::json!({"digest": digest}))?,
        (Deleted::Tag(tag), Format::Table) => println!("untagged: {}:{tag}", reference.name()),
        (Deleted::Manifest(digest), Format::Table) => println!("deleted: {}@{digest}", reference.name()),
    }
    Ok(0)
}

pub async fn login(verb: &args::Login) -> anyhow::Result<u8> {
    let asked = !verb.password_stdin && console::can_ask();
    let username = match &verb.username {
        Some(username) => username.clone(),
        None if asked => console::ask("Username").context("read the user name")?,
        None => anyhow::bail!("a user name is needed: -u NAME"),
    };
    let password = match (&verb.password, verb.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => {
            let mut text = String::new();
            std::io::stdin().take(64 << 10).read_to_string(&mut text).context("read the password")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) if asked => console::ask_secret("Password").context("read the password")?,
        (None, false) => anyhow::bail!("a password is needed: --password-stdin"),
    };
    let mut options = registry_options(&verb.options)?;
    let given = Credentials::Password { username, password };
    options.credentials = Some(given.clone());
    let file = login_file(&verb.options.auth).context("there is no credentials file: give --auth-file")?;
    distribution::login::login(&verb.registry, &options, &file, &given).await.context("log in")?;
    match verb.format.format {
        Format::Json => console::print_json(&serde_json::json!({"registry": verb.registry}))?,
        Format::Table => println!("logged in to {}", verb.registry),
    }
    Ok(0)
}

pub async fn logout(registry: &str, auth: &args::AuthFile, format: Format) -> anyhow::Result<u8> {
    let file = login_file(auth).context("there is no credentials file: give --auth-file")?;
    credentials::erase(&file, registry).await.map_err(distribution::Error::from)?;
    match format {
        Format::Json => console::print_json(&serde_json::json!({"registry": registry}))?,
        Format::Table => println!("logged out of {registry}"),
    }
    Ok(0)
}
