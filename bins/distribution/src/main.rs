//! `pier-distribution`: images. Every verb works on the store's directory itself, with no daemon; `serve` offers the same over
//! gRPC.

mod args;
mod output;
mod verbs;
mod view;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let format = args.globals.error_format;
    args.globals.init_logging();
    console::finish("pier-distribution", format, run(args), rpc::explain_own::<distribution::Error>)
}

fn run(mut args: args::Args) -> anyhow::Result<u8> {
    args.globals = args.globals.absolute().context("find the directories")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = verbs::run(&args) => result,
            // A verb that is given up leaves nothing half made: partial downloads are kept, to go on from.
            () = interrupted(&args.verb) => Err(anyhow::anyhow!("interrupted").context(console::Exit(130))),
        }
    });
    // Threads that write end by themselves when their stream has gone.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

async fn interrupted(verb: &args::Verb) {
    match verb {
        // It drains by itself.
        args::Verb::Serve(_) => std::future::pending().await,
        _ => rpc::shutdown_signal().await,
    }
}
