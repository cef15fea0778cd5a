//! `pier-volume`: arguments and wiring around the `volume` crate.

mod args;
mod events;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::volume::v1::volume_service_server::VolumeServiceServer;
use clap::Parser;
use console::Globals;
use volume::{Changes, CopyUp, Filters, NewVolume, Volumes};

use args::{Cli, Verb};

/// How often drivers are asked again for what they owe.
const RETRY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    rpc::install_tls();
    let cli = Cli::parse();
    let format = cli.globals.error_format;
    console::finish("pier-volume", format, run(cli), rpc::explain_own::<volume::Error>)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Verb::Generate(what) = &cli.verb {
        console::generate::<Cli>(what)?;
        return Ok(0);
    }
    let globals = cli.globals.absolute()?;
    globals.init_logging();
    let limit = Duration::try_from_secs_f64(cli.driver_timeout).context("--driver-timeout")?;
    let volumes = Volumes::open(&globals.tool_root("volume"), &globals.run.join("volume"))?
        .with_store(&globals.root, &globals.run)
        .with_plugins(globals.run.join("plugins"), limit);
    verb(volumes, cli.verb, &globals)
}

fn verb(volumes: Volumes, verb: Verb, globals: &Globals) -> anyhow::Result<u8> {
    match verb {
        Verb::Create(create) => {
            let format = create.format;
            show::named(&volumes.create(new(create)?)?.0, format)?;
        }
        Verb::Ls(ls) => show::list(&volumes, &ls)?,
        Verb::Inspect { names, size } => return show::inspect(&volumes, &names, size),
        Verb::Rm { names, force } => return each(&names, |name| volumes.remove(name, force)),
        Verb::Prune { all, filter, format } => show::pruned(&volumes.prune(all, &filters(&filter)?)?, format)?,
        Verb::Acquire(acquire) => show::mount(&volumes.acquire(&wanted(acquire)?)?)?,
        Verb::Release { consumer, name, remove_anonymous } => {
            let released = volumes.release(&consumer, name.as_deref(), remove_anonymous)?;
            released.released.iter().for_each(|name| println!("{name}"));
        }
        Verb::Remount { consumer } => volumes.remount(&consumer)?,
        Verb::Mount { name, dir, look } => {
            volume::attach(&volumes, &dir, looking(name, look))?;
        }
        Verb::Umount { dir } => volume::detach(&volumes, &dir)?,
        Verb::Update { name, labels: set, label_rm, size } => {
            let size_bytes = size.as_deref().map(volume::option::bytes).transpose()?;
            let changes = Changes { set_labels: labels(&set), remove_labels: label_rm, size_bytes };
            println!("{}", volumes.update(&name, &changes)?.name);
        }
        Verb::Rename { name, new_name } => println!("{}", volumes.rename(&name, &new_name)?.name),
        Verb::Clone { name, new_name, labels: set } => {
            println!("{}", volumes.clone_volume(&name, &new_name, labels(&set))?.name);
        }
        Verb::Snapshot(what) => snapshot(&volumes, what)?,
        Verb::Export { name, output, artifact } => export(&volumes, &name, output, artifact)?,
        Verb::Import { name, file, artifact, replace } => {
            println!("{}", import(&volumes, &name, file, artifact, replace)?.name);
        }
        Verb::Du { names, format } => show::usage(&volumes, &names, format)?,
        Verb::Check { repair, format } => return show::findings(&volumes.check(repair)?, format),
        Verb::Drivers { format } => show::drivers(&volumes.drivers(), format)?,
        Verb::Events { since, until, filter } => events::print(&volumes, since.as_deref(), until.as_deref(), &filter)?,
        Verb::Serve(door) => serve(volumes, &door, globals)?,
        Verb::Generate(_) => {}
    }
    Ok(0)
}

fn new(create: args::Create) -> anyhow::Result<NewVolume> {
    Ok(NewVolume {
        name: create.name,
        driver: create.driver,
        options: pairs(&create.opts, "--opt")?,
        labels: labels(&create.labels),
        size_bytes: create.size.as_deref().map(volume::option::bytes).transpose()?,
        uid: create.uid,
        gid: create.gid,
        mode: create.mode,
    })
}

fn snapshot(volumes: &Volumes, what: args::Snapshot) -> anyhow::Result<()> {
    match what {
        args::Snapshot::Create { volume, name } => println!("{}", volumes.snapshot(&volume, &name)?.name),
        args::Snapshot::Ls { volume, format } => show::snapshots(&volumes.snapshots(&volume)?, format)?,
        args::Snapshot::Rm { volume, name } => volumes.remove_snapshot(&volume, &name)?,
        args::Snapshot::Restore { volume, name } => volumes.restore(&volume, &name)?,
    }
    Ok(())
}

fn export(volumes: &Volumes, name: &str, output: Option<PathBuf>, artifact: Option<String>) -> anyhow::Result<()> {
    match (output, artifact) {
        (_, Some(location)) => volumes.export_artifact(name, &location)?,
        (Some(path), None) => volumes.export_file(name, &path)?,
        (None, None) => volumes.export(name, &mut std::io::stdout().lock())?,
    }
    Ok(())
}

fn import(
    volumes: &Volumes,
    name: &str,
    file: Option<PathBuf>,
    artifact: Option<String>,
    replace: bool,
) -> volume::Result<volume::Volume> {
    match (file, artifact) {
        (_, Some(location)) => volumes.import_artifact(name, &location, replace),
        (Some(path), None) if path.as_os_str() != "-" => volumes.import_file(name, &path, replace),
        _ => volumes.import(name, &mut std::io::stdin().lock(), replace),
    }
}

/// Does all, tells every failure, and ends with 1 when there was one.
fn each(names: &[String], act: impl Fn(&str) -> volume::Result<()>) -> anyhow::Result<u8> {
    let mut failures = Vec::new();
    for name in names {
        match act(name) {
            Ok(()) => println!("{name}"),
            Err(error) => failures.push(anyhow::Error::new(error)),
        }
    }
    let Some(last) = failures.pop() else { return Ok(0) };
    failures.iter().for_each(|failure| eprintln!("Error: {failure:#}"));
    Err(last)
}

fn wanted(acquire: args::Acquire) -> anyhow::Result<volume::Acquire> {
    let layers = acquire.copy_up.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
    let copy_up = (!layers.is_empty()).then_some(CopyUp { layers, path: acquire.copy_up_path });
    let look = looking(acquire.name, acquire.look);
    Ok(volume::Acquire { consumer: acquire.consumer, target: acquire.target, copy_up, ..look })
}

fn looking(name: String, look: args::Look) -> volume::Acquire {
    volume::Acquire {
        name,
        read_only: look.ro || look.rro,
        recursive: look.rro,
        subpath: look.subpath,
        overlay: look.overlay,
        idmap: look.idmap,
        userns: look.userns,
        owner: look.owner,
        propagation: look.propagation,
        ..Default::default()
    }
}

fn pairs(texts: &[String], flag: &str) -> anyhow::Result<BTreeMap<String, String>> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').with_context(|| format!("{flag} {text}: expected KEY=VALUE"))?;
            Ok((key.into(), value.into()))
        })
        .collect()
}

/// As docker: a label without "=" has an empty value.
fn labels(texts: &[String]) -> BTreeMap<String, String> {
    texts.iter().map(|text| text.split_once('=').unwrap_or((text, ""))).map(|(k, v)| (k.into(), v.into())).collect()
}

fn filters(texts: &[String]) -> anyhow::Result<Filters> {
    let grouped = grouped(texts)?;
    Ok(Filters::parse(grouped.iter().map(|(key, values)| (key.as_str(), values.as_slice())))?)
}

fn grouped(texts: &[String]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut grouped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').with_context(|| format!("filter {text}: expected KEY=VALUE"))?;
        grouped.entry(key.into()).or_default().push(value.into());
    }
    Ok(grouped)
}

fn serve(volumes: Volumes, door: &rpc::Door, globals: &Globals) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = door.bind(&globals.run, "volume")?;
        let volumes = Arc::new(volumes);
        // After a reboot what is in use has to be mounted again; drivers may owe unmounts. Nobody waits for either.
        let behind = Arc::clone(&volumes);
        std::thread::spawn(move || {
            behind.restore_mounts();
            loop {
                behind.retry_unmounts();
                std::thread::sleep(RETRY);
            }
        });
        let service = VolumeServiceServer::new(volume::Service::new(volumes));
        door.server(tonic::service::Routes::new(service))
            .health_of(&["pier.volume.v1.VolumeService"])
            .serve(listener, rpc::shutdown_signal())
            .await
    })?;
    Ok(())
}
