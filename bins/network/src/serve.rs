//! `pier-network serve` and `pier-network keep`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use api::network::v1::network_service_server::NetworkServiceServer;
use network::{Background, Config, Networks, SERVICE, Service};
use rpc::Door;
use tonic::service::Routes;

/// Serves until SIGTERM or SIGINT.
pub fn serve(config: Config, run: &Path, door: &Door) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(serve_async(config, run, door));
    // The watching threads block in the kernel and end with the process.
    runtime.shutdown_background();
    result
}

/// Keeps the stack until nobody is attached.
pub fn keep(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let networks = Arc::new(Networks::open(config)?);
    let result = runtime.block_on(network::keeper::keep(networks));
    runtime.shutdown_background();
    Ok(result?)
}

async fn serve_async(config: Config, run: &Path, door: &Door) -> anyhow::Result<()> {
    std::fs::create_dir_all(run).with_context(|| format!("make {}", run.display()))?;
    let listener = door.bind(run, "network")?;
    let networks = Arc::new(Networks::open(config)?);
    let background = Background::start(networks.clone()).await?;
    let service = NetworkServiceServer::new(Service::new(networks.clone(), background.changes()));
    tokio::spawn(reconcile_on_hangup(networks));
    let server = door.server(Routes::new(service)).health_of(&[SERVICE]);
    let served = server.serve(listener, rpc::shutdown_signal()).await;
    background.stop().await;
    Ok(served?)
}

/// SIGHUP: nothing is configured that could be read again, so the kernel is looked over instead.
async fn reconcile_on_hangup(networks: Arc<Networks>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        let networks = networks.clone();
        match tokio::task::spawn_blocking(move || networks.reconcile()).await {
            Ok(Ok(mended)) => mended.iter().for_each(|line| tracing::warn!("reconciled: {line}")),
            Ok(Err(error)) => tracing::error!(%error, "reconcile"),
            Err(error) => tracing::error!(%error, "reconcile"),
        }
    }
}
