//! `pier-volume`: arguments and wiring around the `volume` crate.

mod args;
mod events;
mod show;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use api::volume::v1::volume_service_server::VolumeServiceServer;
use clap::Parser;
use console::Globals;
use volume::{CopyUp, Filters, NewVolume, Volumes};

use args::{Cli, Verb};

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
    let volumes = Volumes::open(&globals.tool_root("volume"))?;
    match cli.verb {
        Verb::Create(create) => {
            let wanted = NewVolume {
                name: create.name,
                driver: create.driver,
                options: pairs(&create.opts, "--opt")?,
                labels: labels(&create.labels),
            };
            println!("{}", volumes.create(wanted)?.0.name);
        }
        Verb::Ls(ls) => show::list(&volumes, &ls)?,
        Verb::Inspect { names, size } => return show::inspect(&volumes, &names, size),
        Verb::Rm { names, force } => return each(&names, |name| volumes.remove(name, force)),
        Verb::Prune { all, filter } => {
            let pruned = volumes.prune(all, &filters(&filter)?)?;
            pruned.removed.iter().for_each(|name| println!("{name}"));
            eprintln!("Reclaimed {}", console::human_size(pruned.reclaimed_bytes));
        }
        Verb::Acquire(acquire) => show::mount(&volumes.acquire(&wanted(acquire)?)?)?,
        Verb::Release { consumer, name, remove_anonymous } => {
            let released = volumes.release(&consumer, name.as_deref(), remove_anonymous)?;
            released.released.iter().for_each(|name| println!("{name}"));
        }
        Verb::Mount { name, dir, ro, subpath } => {
            volume::attach(&volumes, &name, &dir, ro, &subpath)?;
        }
        Verb::Umount { dir } => volume::detach(&volumes, &dir)?,
        Verb::Events { since, until, filter } => events::print(&volumes, since.as_deref(), until.as_deref(), &filter)?,
        Verb::Serve { listen, group } => serve(volumes, listen, group, &globals)?,
        Verb::Generate(_) => {}
    }
    Ok(0)
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
    Ok(volume::Acquire {
        name: acquire.name,
        consumer: acquire.consumer,
        target: acquire.target,
        read_only: acquire.ro,
        subpath: acquire.subpath,
        copy_up,
    })
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

fn serve(volumes: Volumes, listen: Option<rpc::Listen>, group: Option<u32>, globals: &Globals) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listen = listen.unwrap_or_else(|| rpc::Listen::Unix(rpc::socket_path(&globals.run, "volume")));
    runtime.block_on(async {
        let listener = rpc::bind(&listen, group)?;
        tracing::info!(address = listener.address(), "serving pier.volume.v1");
        let service = VolumeServiceServer::new(volume::Service::new(Arc::new(volumes)));
        rpc::Server::new(tonic::service::Routes::new(service))
            .group(group)
            .health_of(&["pier.volume.v1.VolumeService"])
            .serve(listener, rpc::shutdown_signal())
            .await
    })?;
    Ok(())
}
