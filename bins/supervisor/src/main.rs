//! `pier-supervisor`: arguments and wiring around the `supervisor` crate.

mod args;
mod copy;
mod create;
mod interact;
mod lifecycle;
mod serve;
mod show;
mod streams;
mod terminal;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use supervisor::{Config, Supervisor};

use args::{Cli, Verb};

fn main() -> ExitCode {
    rpc::install_tls();
    let cli = Cli::parse();
    let format = cli.globals.error_format;
    console::finish("pier-supervisor", format, run(cli), rpc::explain_own::<supervisor::Error>)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Verb::Generate(what) = &cli.verb {
        console::generate::<Cli>(what)?;
        return Ok(0);
    }
    let globals = cli.globals.absolute()?;
    globals.init_logging();
    let supervisor = open(&globals, cli.runtime)?;
    let mut builder = match &cli.verb {
        Verb::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().context("start the async runtime")?;
    let result = runtime.block_on(dispatch(supervisor, &globals, cli.verb));
    // A thread may still wait for stdin: the verb is done all the same.
    runtime.shutdown_background();
    result
}

fn open(globals: &console::Globals, runtime: String) -> anyhow::Result<Supervisor> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let search = beside.into_iter().chain(std::env::split_paths(&path)).collect();
    let config = Config {
        root: globals.tool_root("supervisor"),
        run: globals.tool_run("supervisor"),
        shim: rpc::spawn::find_program("pier-shim")?,
        runtime,
        search,
    };
    Ok(Supervisor::open(config)?)
}

async fn dispatch(supervisor: Supervisor, globals: &console::Globals, verb: Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Run(args) => lifecycle::run(&supervisor, globals, args).await,
        Verb::Create(args) => lifecycle::create(&supervisor, args),
        Verb::Start(args) => lifecycle::start(&supervisor, args).await,
        Verb::Stop(args) => lifecycle::stop(&supervisor, &args),
        Verb::Restart(args) => lifecycle::restart(&supervisor, &args),
        Verb::Kill(args) => lifecycle::each(&args.containers.ids, |id| supervisor.kill(id, &args.signal)),
        Verb::Rm(args) => lifecycle::remove(&supervisor, &args),
        Verb::Pause(args) => lifecycle::each(&args.ids, |id| supervisor.pause(id)),
        Verb::Unpause(args) => lifecycle::each(&args.ids, |id| supervisor.unpause(id)),
        Verb::Rename(args) => lifecycle::rename(&supervisor, args),
        Verb::Wait(args) => lifecycle::wait(&supervisor, &args).await,
        Verb::Ps(args) => show::list(&supervisor, &args),
        Verb::Inspect(args) => show::inspect(&supervisor, &args),
        Verb::Info => show::info(&supervisor),
        Verb::Top(args) => show::top(&supervisor, &args),
        Verb::Stats(args) => show::stats(&supervisor, args).await,
        Verb::Logs(args) => streams::logs(&supervisor, &args).await,
        Verb::Events(args) => streams::events(&supervisor, &args).await,
        Verb::Exec(args) => streams::exec(&supervisor, args).await,
        Verb::Attach(args) => streams::attach(&supervisor, &args).await,
        Verb::Serve(args) => serve::serve(supervisor, globals, args).await,
        Verb::Cp(args) => copy::copy(&supervisor, &args).await,
        Verb::Generate(_) => Ok(0),
    }
}
