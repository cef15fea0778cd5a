//! `pierd`: the engine's program. Arguments and wiring; the work is in the `engine` crate.
mod args;

use anyhow::Context;
use args::{Args, Serve, Verb};
use clap::Parser;
use engine::clients::ToolConfig;
use engine::{Engine, SERVICES, Settings};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// How long a stop waits for the removal of what a crash left.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.globals.error_format;
    console::finish("pierd", format, run(args), rpc::explain)
}

fn run(args: Args) -> anyhow::Result<u8> {
    rpc::install_tls();
    let globals = args.globals.absolute().context("find the current directory")?;
    match args.verb {
        Verb::Generate(generate) => {
            console::generate::<Args>(&generate).context("write to stdout")?;
            Ok(0)
        }
        Verb::Serve(serve) => {
            globals.init_logging();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("start the async runtime")?;
            let served = runtime.block_on(self::serve(&globals, &serve));
            // Tasks that only watch must not hold the end up.
            runtime.shutdown_background();
            served.map(|()| 0)
        }
    }
}

async fn serve(globals: &console::Globals, serve: &Serve) -> anyhow::Result<()> {
    std::fs::create_dir_all(&globals.run).with_context(|| format!("make {}", globals.run.display()))?;
    let settings = settings(serve)?;
    let tools = ToolConfig {
        root: globals.root.clone(),
        run: globals.run.clone(),
        no_spawn: serve.no_spawn,
        arguments: settings.tool_arguments(),
    };
    let listener = serve.door.bind(&globals.run, "pier")?;
    let engine = Engine::new(tools, settings);
    engine.keep_up();
    reload_on_hangup(engine.clone(), serve.clone())?;
    let ending = engine.clone();
    let server = serve.door.server(engine.routes()).health_of(SERVICES);
    server.serve(listener, rpc::shutdown_signal()).await?;
    ending.settled(SETTLE).await;
    Ok(())
}

fn settings(serve: &Serve) -> anyhow::Result<Settings> {
    let mut settings = match &serve.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Settings::parse(&text).with_context(|| format!("configuration {}", path.display()))?
        }
        None => Settings::default(),
    };
    for runtime in &serve.runtimes {
        settings.add_runtime(runtime)?;
    }
    Ok(settings)
}

// A file that cannot be used leaves the settings as they are.
fn reload_on_hangup(engine: Engine, serve: Serve) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match settings(&serve) {
                Ok(settings) => {
                    engine.reload(settings);
                    tracing::info!("configuration read again");
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "configuration not reloaded"),
            }
        }
    });
    Ok(())
}
