//! `pier`: the front end for people. Docker's verbs and habits over the engine's socket; no state of its own.

// Docker's HostConfig is one long object for `json!`.
#![recursion_limit = "256"]

mod archive;
mod args;
mod client;
mod commands;
mod flags;
mod show;
mod stream;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Top};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (format, engine_verb) = (cli.globals.error_format, cli.runs_a_process());
    let result = run(cli).map_err(|error| match engine_verb && error.downcast_ref::<console::Exit>().is_none() {
        // Docker's convention: 125 tells failures of the engine from those of the command.
        true => error.context(console::Exit(console::exit::ENGINE)),
        false => error,
    });
    stream::terminal::restore();
    console::finish("pier", format, result, rpc::explain)
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Top::Generate(what) = &cli.command {
        console::generate::<Cli>(what)?;
        return Ok(0);
    }
    cli.globals.init_logging();
    let globals = cli.globals.absolute()?;
    let client = client::Client::new(cli.host.as_deref(), &globals.run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(cli.command.run(&client));
    // A thread may sit in a read of stdin for ever.
    runtime.shutdown_background();
    result
}
