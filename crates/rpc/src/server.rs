//! Serving: health and reflection beside the tool's own services, a check of who calls, and a drain with an end.
use crate::{Code, Failure, Listener, Peer};
use std::path::PathBuf;
use std::time::Duration;
use tonic::service::Routes;
use tonic::transport::server::{Router, UdsConnectInfo};

/// Longest wait for open calls after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// A server to be.
pub struct Server {
    routes: Routes,
    group: Option<u32>,
    tls: Option<TlsFiles>,
    notify: bool,
    services: Vec<String>,
}

/// PEM files for mutual TLS; TCP is served with these only.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain of the server.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificate authority of the clients.
    pub client_ca: PathBuf,
}

impl Server {
    /// A server of these services (`Routes::new(XServer::new(..))`, `.add_service(..)`).
    pub fn new(routes: Routes) -> Self {
        Self { routes, group: None, tls: None, notify: true, services: Vec::new() }
    }

    /// Processes of this group may call too.
    pub fn group(mut self, gid: Option<u32>) -> Self {
        self.group = gid;
        self
    }

    /// For TCP.
    pub fn tls(mut self, files: Option<TlsFiles>) -> Self {
        self.tls = files;
        self
    }

    /// Names whose health is SERVING besides the empty one: "pier.network.v1.NetworkService".
    pub fn health_of(mut self, services: &[&str]) -> Self {
        self.services = services.iter().map(|s| s.to_string()).collect();
        self
    }

    /// Do not tell systemd (NOTIFY_SOCKET) about readiness.
    pub fn quiet(mut self) -> Self {
        self.notify = false;
        self
    }

    /// Serves until `shutdown` is done, then finishes open calls for at most ten seconds.
    ///
    /// # Errors
    /// `SERVE_FAILED`; `TLS_REQUIRED` for TCP without certificates.
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Failure> {
        let failed = |e: tonic::transport::Error| Failure::new(Code::Internal, "SERVE_FAILED", "serve").with_cause(&e);
        let (reporter, health) = tonic_health::server::health_reporter();
        for service in &self.services {
            reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        let mut builder = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        if let (Some(files), Listener::Tcp(_)) = (&self.tls, &listener) {
            builder = builder.tls_config(tls_config(files)?).map_err(failed)?;
        }
        let reflection =
            || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(api::DESCRIPTOR_SET);
        let no_reflection = |e| Failure::new(Code::Internal, "SERVE_FAILED", "reflection").with_cause(&e);
        let v1 = reflection().build_v1().map_err(no_reflection)?;
        let v1alpha = reflection().build_v1alpha().map_err(no_reflection)?;
        let routes = self.routes.add_service(health).add_service(v1).add_service(v1alpha);
        let routes = guard(routes, self.group);
        let router: Router = builder.add_routes(routes);
        let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
        let (begun_tx, begun_rx) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            shutdown.await;
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let _ = stop_tx.send(());
            let _ = begun_tx.send(());
        });
        let stopped = async move {
            let _ = stop_rx.await;
        };
        if self.notify {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
        let has_tls = self.tls.is_some();
        let serving = async move {
            match listener {
                Listener::Unix(l, path) => {
                    let _remove = path.map(RemoveOnDrop);
                    let incoming = tokio_stream::wrappers::UnixListenerStream::new(l);
                    router.serve_with_incoming_shutdown(incoming, stopped).await.map_err(failed)
                }
                Listener::Tcp(_) if !has_tls => Err(Failure::new(
                    Code::InvalidArgument,
                    "TLS_REQUIRED",
                    "TCP is served with mutual TLS only: give a certificate, a key and the clients' authority",
                )),
                Listener::Tcp(l) => {
                    let incoming = tokio_stream::wrappers::TcpListenerStream::new(l);
                    router.serve_with_incoming_shutdown(incoming, stopped).await.map_err(failed)
                }
            }
        };
        tokio::select! {
            done = serving => done,
            // Streams without an end would hold a drain for ever.
            () = async { let _ = begun_rx.await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    }
}

/// Tells systemd (NOTIFY_SOCKET) that what serves without a [`Server`] is ready.
pub fn ready() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("lock"));
    }
}

/// Refuses every call of a peer that the socket's mode alone would let through by mistake.
fn guard(routes: Routes, group: Option<u32>) -> Routes {
    let check = move |request: axum::extract::Request, next: axum::middleware::Next| async move {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(Peer::from_info);
        match peer {
            Some(peer) if !peer.allowed(group) => {
                let message = format!("user {} may not use this socket", peer.uid);
                let failure = Failure::new(Code::PermissionDenied, "PEER_NOT_ALLOWED", message);
                tonic::Status::from(failure).into_http()
            }
            _ => next.run(request).await,
        }
    };
    let router = routes.into_axum_router().layer(axum::middleware::from_fn(check));
    Routes::from(router)
}

fn tls_config(files: &TlsFiles) -> Result<tonic::transport::ServerTlsConfig, Failure> {
    crate::install_tls();
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| {
            Failure::new(Code::InvalidArgument, "TLS_FILE", format!("read {}", path.display())).with_cause(&e)
        })
    };
    let identity = tonic::transport::Identity::from_pem(read(&files.cert)?, read(&files.key)?);
    let authority = tonic::transport::Certificate::from_pem(read(&files.client_ca)?);
    Ok(tonic::transport::ServerTlsConfig::new().identity(identity).client_ca_root(authority))
}

/// Done at SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        },
        _ => std::future::pending().await,
    }
}
