//! Clients: a channel to a tool's socket with a deadline, and its health.
use crate::{Code, Failure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint, Uri};

/// Connects to the unix socket at `path` within `timeout`. The channel reconnects by itself when the server comes back.
///
/// # Errors
/// `UNREACHABLE` when nobody listens there in time.
pub async fn connect(path: &Path, timeout: Duration) -> Result<Channel, Failure> {
    let path = path.to_path_buf();
    let missing = |e: &(dyn std::error::Error + 'static)| {
        Failure::new(Code::Unavailable, "UNREACHABLE", format!("cannot reach {}", path.display())).with_cause(e)
    };
    let endpoint = Endpoint::from_static("http://pier.local")
        .connect_timeout(timeout)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    endpoint.connect_with_connector(connector(path.clone())).await.map_err(|e| missing(&e))
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = hyper_util::rt::TokioIo<tokio::net::UnixStream>,
    Error = std::io::Error,
    Future: Send,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok(hyper_util::rt::TokioIo::new(open(&path).await?)) }
    })
}

/// A plain connection to the unix socket at `path`, whose listener is alive.
///
/// # Errors
/// connect(2)'s; ECONNREFUSED also for a listener that is dying.
pub async fn open(path: &Path) -> std::io::Result<tokio::net::UnixStream> {
    let stream = tokio::net::UnixStream::connect(path).await?;
    if crate::peer::listener_lives(&stream) { Ok(stream) } else { Err(std::io::ErrorKind::ConnectionRefused.into()) }
}

/// True when the server says it serves.
pub async fn health(channel: Channel, service: &str) -> Result<bool, Failure> {
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
    let answer = client.check(request).await?.into_inner();
    Ok(answer.status() == tonic_health::pb::health_check_response::ServingStatus::Serving)
}

/// Connects to a server that is just starting: tries again until `timeout` has passed.
pub async fn wait_serving(path: &Path, timeout: Duration) -> Result<Channel, Failure> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let tried = match connect(path, left.max(Duration::from_millis(50))).await {
            Ok(channel) => match health(channel.clone(), "").await {
                Ok(true) => return Ok(channel),
                Ok(false) => {
                    Failure::new(Code::Unavailable, "NOT_SERVING", format!("{} does not serve", path.display()))
                }
                Err(e) => e,
            },
            Err(e) => e,
        };
        if Instant::now() >= end {
            return Err(tried);
        }
        // A socket that is about to appear: connect(2) cannot be waited for.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
