//! One function per verb: arguments in, a call of the library, its result on standard output.

mod archive;
mod artifact;
mod copy;
mod images;
mod look;
mod make;
mod manifest;
mod remote;
mod serve;
mod snapshot;
mod space;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use distribution::Store;
use distribution::copy::Place;
use distribution::progress::Reporter;
use distribution::registry::{Credentials, Options};
use distribution::transport::Location;

use crate::args::{self, Args, Verb};
use crate::output::reporter;

/// Does what the command line says; the value is the exit code.
pub async fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.verb {
        Verb::Pull(verb) => remote::pull(args, verb).await,
        Verb::Push(verb) => remote::push(args, verb).await,
        Verb::Copy(verb) => copy::copy(args, verb).await,
        Verb::Sync(verb) => copy::sync(args, verb).await,
        Verb::Inspect(verb) => look::inspect(args, verb).await,
        Verb::Tags(verb) => remote::tags(verb).await,
        Verb::Catalog { registry, options, format } => remote::catalog(registry, options, format.format).await,
        Verb::Search(verb) => remote::search(verb).await,
        Verb::Digest(verb) => look::digest(args, verb).await,
        Verb::History(verb) => look::history(args, verb).await,
        Verb::Diff(verb) => look::diff(args, verb).await,
        Verb::Delete { image, manifest, registry, format } => {
            remote::delete(image, *manifest, registry, format.format).await
        }
        Verb::Manifest(verb) => manifest::run(args, verb).await,
        Verb::Flatten(verb) => make::flatten(args, verb).await,
        Verb::Rebase(verb) => make::rebase(args, verb).await,
        Verb::Mutate(verb) => make::mutate(args, verb).await,
        Verb::Artifact(verb) => artifact::run(args, verb).await,
        Verb::Login(verb) => remote::login(verb).await,
        Verb::Logout { registry, auth, format } => remote::logout(registry, auth, format.format).await,
        Verb::Tag { source, target, format } => images::tag(args, source, target, format.format),
        Verb::Ls(verb) => images::ls(args, verb),
        Verb::Rm { images, force, platform, format } => {
            images::rm(args, images, *force, platform.as_ref(), format.format)
        }
        Verb::Prune { all, filter, format } => images::prune(args, *all, filter, format.format),
        Verb::Save(verb) => archive::save(args, verb).await,
        Verb::Load(verb) => archive::load(args, verb).await,
        Verb::Import(verb) => archive::import(args, verb).await,
        Verb::Export { name, snapshot, output, format } => {
            archive::export(args, name, *snapshot, output, format.format)
        }
        Verb::Gc { dry_run, abandoned, quarantine, format } => {
            let (dry_run, abandoned, quarantine) = (*dry_run, *abandoned, *quarantine);
            let policy = distribution::gc::Policy { dry_run, abandoned, quarantine, ..Default::default() };
            space::gc(args, &policy, format.format)
        }
        Verb::Df { verbose, format } => space::df(args, *verbose, format.format),
        Verb::Info { format } => space::info(args, format.format),
        Verb::Check { repair, format } => space::check(args, *repair, format.format),
        Verb::Snapshot(verb) => snapshot::run(args, verb).await,
        Verb::Events { since, no_follow, format } => images::events(args, *since, *no_follow, *format).await,
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
    let store = Store::open(&root).with_context(|| format!("open the image store in {}", root.display()))?;
    store.prefer(&args.snapshotter);
    Ok(store)
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

fn registry_options(args: &args::Registry) -> anyhow::Result<Options> {
    Ok(Options {
        credentials: args.creds.as_deref().map(credentials).transpose()?,
        plain_http: args.plain_http,
        tls_skip_verify: args.tls_skip_verify,
        insecure: args.insecure || args.tls_verify == Some(false),
        trust: args.trust.trust_policy.clone(),
        ..registry_defaults(&args.auth, &args.files)
    })
}

/// How the source's registry is reached.
fn source_options(sides: &args::Sides) -> anyhow::Result<Options> {
    let mut options = registry_options(&sides.both)?;
    options.plain_http |= sides.src_plain_http;
    options.tls_skip_verify |= sides.src_tls_skip_verify;
    options.insecure = sides.src_tls_verify.map_or(options.insecure, |verify| !verify);
    narrow(&mut options, sides.src_creds.as_deref(), sides.src_auth_file.as_ref(), sides.src_no_creds)?;
    Ok(options)
}

/// How the destination's registry is reached.
fn destination_options(sides: &args::Sides) -> anyhow::Result<Options> {
    let mut options = registry_options(&sides.both)?;
    options.plain_http |= sides.dest_plain_http;
    options.tls_skip_verify |= sides.dest_tls_skip_verify;
    options.insecure = sides.dest_tls_verify.map_or(options.insecure, |verify| !verify);
    narrow(&mut options, sides.dest_creds.as_deref(), sides.dest_auth_file.as_ref(), sides.dest_no_creds)?;
    Ok(options)
}

fn narrow(options: &mut Options, creds: Option<&str>, file: Option<&PathBuf>, none: bool) -> anyhow::Result<()> {
    if let Some(file) = file {
        (options.credentials, options.auth_file) = (None, Some(file.clone()));
    }
    if let Some(creds) = creds {
        options.credentials = Some(credentials(creds)?);
    }
    if none {
        // An empty file: without one the usual files are asked.
        (options.credentials, options.auth_file) = (None, Some("/dev/null".into()));
    }
    Ok(())
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

/// `key=value`, repeated, as a map.
fn pairs(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let split = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    given.iter().map(split).collect()
}

/// What verbs on locations stand on: the store is opened (and made) only when one of them lies in it.
struct Ground {
    store: Option<Store>,
    scratch: PathBuf,
    reporter: Reporter,
}

impl Ground {
    fn new(args: &Args, store: bool, progress: Option<&args::Progress>) -> anyhow::Result<Self> {
        let store = store.then(|| self::store(args)).transpose()?;
        let scratch = store.as_ref().map_or_else(scratch, |store| store.root().to_owned());
        Ok(Self { store, scratch, reporter: progress.map_or_else(Reporter::silent, reporter) })
    }

    fn of(args: &Args, locations: &[&Location], progress: Option<&args::Progress>) -> anyhow::Result<Self> {
        Self::new(args, locations.iter().any(|location| location.is_store()), progress)
    }

    fn place(&self) -> Place<'_> {
        Place { store: self.store.as_ref(), scratch: &self.scratch, reporter: &self.reporter }
    }
}

/// Where large temporary files go: /tmp is often memory.
fn scratch() -> PathBuf {
    let var = PathBuf::from("/var/tmp");
    match std::env::var_os("TMPDIR") {
        None if var.is_dir() => var,
        _ => std::env::temp_dir(),
    }
}
