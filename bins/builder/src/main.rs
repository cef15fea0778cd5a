//! `pier-builder`: arguments and wiring around the `builder` crate.

mod args;
mod progress;
mod request;

use anyhow::Context as _;
use api::builder::v1::builder_service_server::BuilderServiceServer;
use builder::cache::Limits;
use builder::progress::Sink;
use builder::service::{Service, result_message};
use builder::{Builder, Built, Config, Store, convert, dump};
use clap::Parser as _;
use console::Globals;
use rpc::spawn::{Running, Tool, find_program};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use args::{Build, Cli, Debug, Settings, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.globals.error_format;
    console::finish("pier-builder", format, run(cli), rpc::explain_own::<builder::Error>)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Verb::Generate(what) = &cli.verb {
        console::generate::<Cli>(what)?;
        return Ok(0);
    }
    rpc::install_tls();
    let globals = cli.globals.absolute()?;
    globals.init_logging();
    // Root filesystems are mounted in a namespace of our own, so that none outlives us. Before any thread.
    sys::mount::private_namespace().context("make a mount namespace (building needs root)")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    let result = runtime.block_on(verb(&globals, &cli.settings, cli.verb));
    runtime.shutdown_background();
    result
}

async fn verb(globals: &Globals, settings: &Settings, verb: Verb) -> anyhow::Result<u8> {
    let (builder, store) = open(globals, settings).await?;
    let result = match verb {
        Verb::Build(args) => build(&builder, &args).await,
        Verb::Du { format } => du(&builder, format),
        Verb::Prune { all, keep_seconds, keep_bytes } => {
            let limits = Limits { keep_seconds, keep_bytes: request::size("--keep-bytes", &keep_bytes)? };
            prune(&builder, limits, all).await
        }
        Verb::Debug(Debug::DumpLlb(args)) => {
            let request = convert::request(request::message(&args)?)?;
            let definition = builder.definition(&request, &Sink::none()).await?;
            console::print_json(&dump::dump(&definition)?).map(|()| 0)
        }
        Verb::Serve(door) => serve(globals, Arc::new(builder), &door).await,
        Verb::Generate(_) => Ok(0),
    };
    if let Some(running) = store {
        running.stop().await;
    }
    result
}

/// The builder on this root, and the store if it had to be started.
async fn open(globals: &Globals, settings: &Settings) -> anyhow::Result<(Builder, Option<Running>)> {
    let tool = Tool {
        name: "distribution".into(),
        program: find_program("pier-distribution").unwrap_or_else(|_| PathBuf::from("pier-distribution")),
        root: globals.root.clone(),
        run: globals.run.clone(),
        args: Vec::new(),
    };
    let (channel, running) = tool.for_one_verb().await.context("reach the image store")?;
    let opened = Builder::open(config(globals, settings)?, Store::new(channel)).await;
    match opened {
        Ok(builder) => Ok((builder, running)),
        Err(error) => {
            if let Some(running) = running {
                running.stop().await;
            }
            Err(error.into())
        }
    }
}

fn config(globals: &Globals, settings: &Settings) -> anyhow::Result<Config> {
    let runtime = match &settings.runtime {
        Some(path) if path.components().count() > 1 => std::path::absolute(path)?,
        Some(name) => name.clone(),
        None => find_program("pier-runtime").unwrap_or_else(|_| PathBuf::from("pier-runtime")),
    };
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Ok(Config {
        root: globals.tool_root("builder"),
        runtime,
        parallelism: settings.parallelism.unwrap_or((2 * processors).max(4)),
        cache_limit_bytes: u64::try_from(request::size("--cache-limit", &settings.cache_limit)?)?,
    })
}

async fn build(builder: &Builder, args: &Build) -> anyhow::Result<u8> {
    let request = convert::request(request::message(args)?)?;
    let mut screen = progress::Screen::new(args.progress, args.quiet);
    let (sink, mut events) = Sink::channel();
    let cancel = CancellationToken::new();
    let building = builder.build(&request, &sink, &cancel);
    tokio::pin!(building);
    let interrupted = rpc::shutdown_signal();
    tokio::pin!(interrupted);
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => screen.show(&convert::event(event)),
            result = &mut building => break result,
            () = &mut interrupted, if !cancel.is_cancelled() => cancel.cancel(),
        }
    };
    while let Ok(event) = events.try_recv() {
        screen.show(&convert::event(event));
    }
    let built = result?;
    screen.show(&result_message(&built));
    for warning in &built.warnings {
        screen.warn(warning);
    }
    report(&built, args)
}

fn report(built: &Built, args: &Build) -> anyhow::Result<u8> {
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &built.image_id).with_context(|| format!("write {}", path.display()))?;
    }
    let stdout_taken = args.outputs.iter().any(|output| output.contains("dest=-"));
    if !built.image_id.is_empty() && !stdout_taken {
        println!("{}", built.image_id);
    }
    Ok(0)
}

fn du(builder: &Builder, format: console::Format) -> anyhow::Result<u8> {
    let records: Vec<_> = builder.disk_usage()?.into_iter().map(convert::record).collect();
    if format == console::Format::Json {
        let rows: Vec<_> = records
            .iter()
            .map(|record| {
                serde_json::json!({
                    "id": record.id, "description": record.description, "size_bytes": record.size_bytes,
                    "created_at": record.created_at, "last_used_at": record.last_used_at, "in_use": record.in_use,
                })
            })
            .collect();
        return console::print_json(&rows).map(|()| 0);
    }
    let size = |bytes: i64| console::human_size(u64::try_from(bytes).unwrap_or(0));
    let mut table = console::Table::new(["ID", "SIZE", "LAST USED", "STEP"]);
    for record in &records {
        let used = console::human_ago(&record.last_used_at);
        table.row([record.id.clone(), size(record.size_bytes), used, record.description.clone()]);
    }
    table.print()?;
    println!("total {}", size(records.iter().map(|record| record.size_bytes).sum()));
    Ok(0)
}

async fn prune(builder: &Builder, limits: Limits, all: bool) -> anyhow::Result<u8> {
    let (removed, bytes) = builder.prune(limits, all).await?;
    for id in &removed {
        println!("{id}");
    }
    eprintln!("{} removed, {} freed", removed.len(), console::human_size(u64::try_from(bytes).unwrap_or(0)));
    Ok(0)
}

async fn serve(globals: &Globals, builder: Arc<Builder>, door: &rpc::Door) -> anyhow::Result<u8> {
    std::fs::create_dir_all(&globals.run).with_context(|| format!("create {}", globals.run.display()))?;
    let listener = door.bind(&globals.run, "builder")?;
    let service = BuilderServiceServer::new(Service::new(Arc::clone(&builder)));
    let routes = tonic::service::Routes::new(service);
    let server = door.server(routes).health_of(&["pier.builder.v1.BuilderService"]);
    let served = server.serve(listener, rpc::shutdown_signal()).await;
    // What has not ended by now is cancelled and cleans up.
    builder.shutdown().await;
    served?;
    Ok(0)
}
