//! What `pier-runtime` becomes for the verbs that no container waits for: `serve ROOT RUN [FLAGS]`, where every RPC runs
//! `pier-runtime` from the same directory as a single-threaded child, `completion SHELL` and `man DIR`.

// The table of commands, to write it down; not to parse by it.
#[path = "../args.rs"]
#[allow(dead_code)]
mod args;
mod manual;
#[path = "../migrate.rs"]
#[allow(dead_code)]
mod migrate;
#[path = "../verbs.rs"]
mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use api::runtime::v1::runtime_service_server::RuntimeServiceServer;
use clap::Parser;
use runtime::service::Service;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", rest @ ..] => threaded(rest),
        [verb @ ("completion" | "man"), operand] => manual::generate(verb, operand),
        _ => Err(anyhow::anyhow!("started by `pier-runtime`, not by hand")),
    };
    console::finish("pier-runtime", console::ErrorFormat::default(), result, rpc::explain)
}

fn threaded(args: &[&str]) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(args))
}

/// What `pier-runtime serve` hands on.
#[derive(clap::Parser)]
#[command(name = "pier-runtime serve")]
struct Serve {
    root: PathBuf,
    run: PathBuf,
    #[command(flatten)]
    door: rpc::Door,
}

async fn serve(args: &[&str]) -> anyhow::Result<u8> {
    let Serve { root, run, door } = Serve::parse_from(["serve"].iter().chain(args));
    std::fs::create_dir_all(&run).with_context(|| format!("make {}", run.display()))?;
    let listener = door.bind(&run, "runtime")?;
    let runtime = std::env::current_exe()?.with_file_name("pier-runtime");
    let service = Service::new(runtime, root);
    let routes = tonic::service::Routes::new(RuntimeServiceServer::new(service));
    door.server(routes).health_of(&["pier.runtime.v1.RuntimeService"]).serve(listener, rpc::shutdown_signal()).await?;
    Ok(0)
}
