//! The one socket that everything goes through.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::builder::v1::builder_service_client::BuilderServiceClient;
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use api::engine::v1::engine_service_client::EngineServiceClient;
use api::network::v1::network_service_client::NetworkServiceClient;
use api::supervisor::v1::supervisor_service_client::SupervisorServiceClient;
use api::volume::v1::volume_service_client::VolumeServiceClient;
use rpc::Failure;
use tonic::Status;
use tonic::transport::Channel;

/// How long to wait for the engine to take the call.
const CONNECT: Duration = Duration::from_secs(5);
/// Listings and image configurations may be large.
const MESSAGE: usize = 64 << 20;

/// Where the engine is; connects when a verb first needs it.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    channel: tokio::sync::OnceCell<Channel>,
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $client:ident) => {
        $(#[$doc])*
        pub async fn $name(&self) -> anyhow::Result<$client<Channel>> {
            Ok($client::new(self.channel().await?).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
        }
    };
}

impl Client {
    /// `host` is `unix:///path` or a path; without one, `<run>/pier.sock`.
    pub fn new(host: Option<&str>, run: &std::path::Path) -> anyhow::Result<Self> {
        let socket = match host {
            None | Some("") => rpc::socket_path(run, "pier"),
            Some(host) => match host.strip_prefix("unix://").unwrap_or(host) {
                path if path.starts_with('/') => path.into(),
                _ => bail!("invalid host {host:?}: expected unix:///path/to/pier.sock"),
            },
        };
        Ok(Self { socket, channel: tokio::sync::OnceCell::new() })
    }

    async fn channel(&self) -> anyhow::Result<Channel> {
        let connect = || async {
            rpc::connect(&self.socket, CONNECT).await.map_err(|failure| {
                let message = format!("cannot reach the engine at unix://{}", self.socket.display());
                anyhow::Error::new(root(failure)).context(message).context(console::hint("start it: pierd serve"))
            })
        };
        self.channel.get_or_try_init(connect).await.cloned()
    }

    service!(/// Composed verbs. 
        engine, EngineServiceClient);
    service!(/// Containers.
        supervisor, SupervisorServiceClient);
    service!(/// Images.
        distribution, DistributionServiceClient);
    service!(/// Networks.
        network, NetworkServiceClient);
    service!(/// Volumes.
        volume, VolumeServiceClient);
    service!(/// Builds.
        builder, BuilderServiceClient);
}

/// Only the innermost cause is news: the message says already what could not be reached.
fn root(failure: Failure) -> std::io::Error {
    let text = failure.causes.last().cloned().unwrap_or(failure.message);
    std::io::Error::new(std::io::ErrorKind::NotConnected, text)
}

/// A call's answer, or the failure that came over the wire.
pub trait Answer<T> {
    /// The message itself.
    fn answer(self) -> anyhow::Result<T>;
}

impl<T> Answer<T> for Result<tonic::Response<T>, Status> {
    fn answer(self) -> anyhow::Result<T> {
        self.map(tonic::Response::into_inner).map_err(failure)
    }
}

/// A status as an error that keeps reason, causes and hint.
pub fn failure(status: Status) -> anyhow::Error {
    anyhow::Error::new(Failure::from(status))
}

/// The next message of a stream.
pub async fn next<T>(stream: &mut tonic::Streaming<T>) -> anyhow::Result<Option<T>> {
    stream.message().await.map_err(failure)
}

/// For fields that a server always fills.
pub fn filled<T>(field: Option<T>, what: &'static str) -> anyhow::Result<T> {
    field.with_context(|| format!("the engine's answer lacks the {what}"))
}

/// Whether an error says that the named object does not exist.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<Failure>().is_some_and(|failure| failure.code == rpc::Code::NotFound))
}
