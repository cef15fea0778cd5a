//! One function per verb: arguments in, a call of the library, its result on standard output.

mod archive;
mod images;
mod remote;
mod serve;
mod snapshot;
mod space;
mod trust;

use std::path::PathBuf;

use anyhow::Context as _;
use distribution::Store;
use distribution::registry::{Credentials, Options};

use crate::args::{self, Args, Verb};

/// Does what the command line says; the value is the exit code.
pub async fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.verb {
        Verb::Pull(verb) => remote::pull(args, verb).await,
        Verb::Push(verb) => remote::push(args, verb).await,
        Verb::Copy(verb) => remote::copy(args, verb).await,
        Verb::Inspect(verb) => images::inspect(args, verb).await,
        Verb::Tags(verb) => remote::tags(verb).await,
        Verb::Login(verb) => remote::login(verb).await,
        Verb::Logout { registry, auth } => remote::logout(registry, auth).await,
        Verb::Tag { source, target } => images::tag(args, source, target),
        Verb::Ls(verb) => images::ls(args, verb),
        Verb::Rm { images, force } => images::rm(args, images, *force),
        Verb::Prune { all, filter } => images::prune(args, *all, filter),
        Verb::Save(verb) => archive::save(args, verb).await,
        Verb::Load { path, input, progress } => {
            let path = path.as_ref().or(input.as_ref());
            archive::load(args, path.map_or(std::path::Path::new("-"), PathBuf::as_path), progress).await
        }
        Verb::Import(verb) => archive::import(args, verb).await,
        Verb::Export { name, snapshot, output } => archive::export(args, name, *snapshot, output),
        Verb::Gc { dry_run, abandoned, format } => space::gc(args, *dry_run, *abandoned, format.format),
        Verb::Df { format } => space::df(args, format.format),
        Verb::Check { repair, format } => space::check(args, *repair, format.format),
        Verb::Snapshot(verb) => snapshot::run(args, verb).await,
        Verb::Events { since, no_follow } => images::events(args, *since, *no_follow).await,
        Verb::Key(verb) => trust::key(verb),
        Verb::Sign(verb) => trust::sign(verb).await,
        Verb::Verify(verb) => trust::verify(verb).await,
        Verb::Attestation(args::Attestation::Ls(verb)) => trust::attestations(verb).await,
        Verb::Serve(verb) => serve::run(args, verb).await,
        Verb::Generate(what) => console::generate::<Args>(what).map(|()| 0),
    }
}

/// Opens the store of the command line.
fn store(args: &Args) -> anyhow::Result<Store> {
    let root = args.globals.tool_root("distribution");
    Store::open(&root).with_context(|| format!("open the image store in {}", root.display()))
}

/// The credentials file that logins go to: the flag's, or docker's.
fn login_file(given: &args::AuthFile) -> Option<PathBuf> {
    given.auth_file.clone().or_else(distribution::registry::credentials::docker_file)
}

/// How registries are reached without flags of a verb.
fn registry_defaults(auth: &args::AuthFile, files: &args::RegistryFiles) -> Options {
    Options {
        auth_file: auth.auth_file.clone(),
        registries_conf: files.registries_conf.clone(),
        certs_dir: files.certs_dir.clone(),
        ..Options::default()
    }
}

fn registry_options(args: &args::Registry, special: Option<&str>) -> anyhow::Result<Options> {
    Ok(Options {
        credentials: special.or(args.creds.as_deref()).map(credentials).transpose()?,
        plain_http: args.plain_http,
        tls_skip_verify: args.tls_skip_verify,
        trust: args.trust.trust_policy.clone(),
        ..registry_defaults(&args.auth, &args.files)
    })
}

fn credentials(text: &str) -> anyhow::Result<Credentials> {
    let (username, password) = text.split_once(':').context("credentials are USER:PASSWORD")?;
    Ok(Credentials::Password { username: username.into(), password: password.into() })
}

/// `key=value`, repeated, as filters.
fn filters(given: &[String]) -> anyhow::Result<distribution::image::Filters> {
    let mut filters = distribution::image::Filters::new();
    for filter in given {
        let (key, value) = filter.split_once('=').with_context(|| format!("the filter {filter:?} is not KEY=VALUE"))?;
        filters.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Ok(filters)
}
