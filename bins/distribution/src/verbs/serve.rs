//! `serve`: the gRPC service, in the foreground.

use anyhow::Context as _;
use api::distribution::v1::distribution_service_server::DistributionServiceServer;
use distribution::service::Service;

use super::{auth_file, store};
use crate::args::{self, Args};

pub async fn run(args: &Args, verb: &args::Serve) -> anyhow::Result<u8> {
    let listen = match &verb.listen {
        Some(address) => address.parse()?,
        None => rpc::Listen::Unix(rpc::socket_path(&args.globals.run, "distribution")),
    };
    let service = Service::new(store(args)?, auth_file(&verb.auth));
    let listener = rpc::bind(&listen, verb.group).context("listen")?;
    tracing::info!(address = listener.address(), "serving");
    let routes = tonic::service::Routes::new(
        DistributionServiceServer::new(service).max_decoding_message_size(16 << 20).max_encoding_message_size(16 << 20),
    );
    rpc::Server::new(routes)
        .group(verb.group)
        .health_of(&["pier.distribution.v1.DistributionService"])
        .serve(listener, rpc::shutdown_signal())
        .await?;
    Ok(0)
}
