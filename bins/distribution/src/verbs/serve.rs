//! `serve`: the gRPC service and the registry, in the foreground.

use anyhow::Context as _;
use api::distribution::v1::distribution_service_server::DistributionServiceServer;
use distribution::Store;
use distribution::gc::automatic::Automatic;
use distribution::registry::Options as RegistryOptions;
use distribution::server::{Options, Server, Upstream};
use distribution::service::Service;
use std::time::Duration;

use super::{credentials, registry_defaults, store};
use crate::args::{self, Args};

pub async fn run(args: &Args, verb: &args::Serve) -> anyhow::Result<u8> {
    let registry = match &verb.registry.listen {
        Some(address) => Some(registry(args, verb, *address).await?),
        None => None,
    };
    if verb.registry.only {
        let registry = registry.context("--registry-only needs --registry")?;
        rpc::ready();
        registry.run(rpc::shutdown_signal()).await;
        return Ok(0);
    }
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let registry = registry.map(|registry| {
        tokio::spawn(registry.run(async {
            let _ = stopped.await;
        }))
    });
    let served = grpc(args, verb).await;
    drop(stop);
    if let Some(registry) = registry {
        registry.await.context("stop the registry")?;
    }
    served.map(|()| 0)
}

async fn grpc(args: &Args, verb: &args::Serve) -> anyhow::Result<()> {
    let store = store(args)?;
    let automatic = Automatic {
        interval: Duration::from_secs(verb.gc_interval),
        grace: Duration::from_secs(verb.gc_grace),
        keep_bytes: verb.gc_keep.map(|mib| mib << 20),
        min_free_percent: verb.gc_min_free,
    };
    tokio::spawn(distribution::service::collect_by_itself(store.clone(), automatic));
    let defaults = registry_defaults(&verb.auth, &verb.files);
    let service = Service::new(store, defaults).trusting(verb.trust.trust_policy.clone());
    let listener = verb.door.bind(&args.globals.run, "distribution")?;
    let routes = tonic::service::Routes::new(
        DistributionServiceServer::new(service).max_decoding_message_size(16 << 20).max_encoding_message_size(16 << 20),
    );
    verb.door
        .server(routes)
        .health_of(&["pier.distribution.v1.DistributionService"])
        .serve(listener, rpc::shutdown_signal())
        .await?;
    Ok(())
}

async fn registry(args: &Args, verb: &args::Serve, listen: std::net::SocketAddr) -> anyhow::Result<Server> {
    let given = &verb.registry;
    let store = match &given.dir {
        Some(dir) => Store::open(dir).with_context(|| format!("open the registry in {}", dir.display()))?,
        None => store(args)?,
    };
    let options = Options {
        listen,
        tls: given.tls_cert.clone().zip(given.tls_key.clone()),
        htpasswd: given.htpasswd.clone(),
        open: given.open,
        upstream: given.proxy.clone().map(|url| upstream(verb, url)).transpose()?,
    };
    let server = Server::bind(store, &options).await.context("offer the registry")?;
    let address = server.address().unwrap_or(listen);
    tracing::info!(%address, "offering a registry");
    Ok(server)
}

fn upstream(verb: &args::Serve, url: String) -> anyhow::Result<Upstream> {
    let options = RegistryOptions {
        credentials: verb.registry.proxy_creds.as_deref().map(credentials).transpose()?,
        ..registry_defaults(&verb.auth, &verb.files)
    };
    let keep_bytes = verb.registry.proxy_keep.map(|mib| mib << 20);
    Ok(Upstream { url, options, keep_bytes })
}
