//! `serve`: the only verb with threads. Every RPC runs this program again, as a single-threaded child.

use std::path::Path;
use std::process::ExitCode;

use api::runtime::v1::runtime_service_server::RuntimeServiceServer;
use runtime::service::Service;

use crate::args::Parsed;

/// Serves until told to stop.
pub fn main(parsed: &Parsed, root: &Path, run: &Path) -> ExitCode {
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|tokio| tokio.block_on(serve(parsed, root, run)));
    console::finish("pier-runtime", console::ErrorFormat::default(), result, rpc::explain)
}

async fn serve(parsed: &Parsed, root: &Path, run: &Path) -> anyhow::Result<u8> {
    let listen = match parsed.flags.last("listen") {
        Some(address) => address.parse()?,
        None => rpc::Listen::Unix(rpc::socket_path(run, "runtime")),
    };
    if let rpc::Listen::Unix(path) = &listen
        && let Some(dir) = path.parent()
    {
        std::fs::create_dir_all(dir)?;
    }
    let group = parsed.flags.last("group").map(str::parse).transpose()?;
    let listener = rpc::bind(&listen, group)?;
    let service = Service::new(std::env::current_exe()?, root.to_owned());
    let routes = tonic::service::Routes::new(RuntimeServiceServer::new(service));
    rpc::Server::new(routes)
        .group(group)
        .health_of(&["pier.runtime.v1.RuntimeService"])
        .serve(listener, rpc::shutdown_signal())
        .await?;
    Ok(0)
}
