//! `pier-runtime-serve ROOT LISTEN [GROUP]`: what `pier-runtime serve` becomes. Every RPC runs `pier-runtime` from the same
//! directory, as a single-threaded child.

use std::process::ExitCode;

use anyhow::Context;
use api::runtime::v1::runtime_service_server::RuntimeServiceServer;
use runtime::service::Service;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|tokio| tokio.block_on(serve(&args)));
    console::finish("pier-runtime", console::ErrorFormat::default(), result, rpc::explain)
}

async fn serve(args: &[String]) -> anyhow::Result<u8> {
    let (root, listen, group) = match args {
        [root, listen] => (root, listen, None),
        [root, listen, group] => (root, listen, Some(group.parse().context("--group")?)),
        _ => anyhow::bail!("started by `pier-runtime serve`, not by hand"),
    };
    let listen: rpc::Listen = listen.parse()?;
    if let rpc::Listen::Unix(path) = &listen
        && let Some(dir) = path.parent()
    {
        std::fs::create_dir_all(dir)?;
    }
    let listener = rpc::bind(&listen, group)?;
    let runtime = std::env::current_exe()?.with_file_name("pier-runtime");
    let service = Service::new(runtime, root.into());
    let routes = tonic::service::Routes::new(RuntimeServiceServer::new(service));
    rpc::Server::new(routes)
        .group(group)
        .health_of(&["pier.runtime.v1.RuntimeService"])
        .serve(listener, rpc::shutdown_signal())
        .await?;
    Ok(0)
}
