//! The daemon: the API, and watching.

use api::supervisor::v1::supervisor_service_server::SupervisorServiceServer;
use console::Globals;
use supervisor::{Daemon, Service, Supervisor};

use crate::args;

/// Largest message: an OCI configuration with injected files is well below.
const MAX_MESSAGE: usize = 32 << 20;

pub async fn serve(supervisor: Supervisor, globals: &Globals, args: args::Serve) -> anyhow::Result<u8> {
    let listener = args.door.bind(&globals.run, "supervisor")?;
    let daemon = Daemon::new(supervisor.clone());
    daemon.recover().await?;
    let watching = async move {
        if let Err(error) = daemon.run().await {
            tracing::error!(%error, "containers are no longer watched");
        }
        std::future::pending::<()>().await;
    };
    let service = SupervisorServiceServer::new(Service::new(supervisor)).max_decoding_message_size(MAX_MESSAGE);
    let routes = tonic::service::Routes::new(service);
    let server = args.door.server(routes).health_of(&["pier.supervisor.v1.SupervisorService"]);
    tokio::select! {
        result = server.serve(listener, rpc::shutdown_signal()) => result?,
        () = watching => {}
    }
    Ok(0)
}
