//! Connections: bind, accept, hand over, drain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::error::Error;
use super::{Options, Shared, answer, auth, evict, proxy, sessions, tls};
use crate::Store;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// Longest wait for a TLS handshake or a request's headers.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Longest wait for open requests after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    /// Bytes that a cache may keep.
    keep: Option<u64>,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens everything that the options name, then the address.
    ///
    /// # Errors
    /// [`Error`], as [`crate::Error::Server`]; those of the upstream's name and of the store.
    pub async fn bind(store: Store, options: &Options) -> crate::Result<Self> {
        refuse_strangers(options)?;
        let tls = options.tls.as_ref().map(|(cert, key)| tls::acceptor(cert, key)).transpose()?;
        let users = options.htpasswd.as_deref().map(auth::Users::open).transpose()?;
        let proxy = match &options.upstream {
            Some(upstream) => Some(proxy::Proxy::open(upstream).await?),
            None => None,
        };
        let address = options.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        let uploads = sessions::Uploads::new(&store);
        let keep = options.upstream.as_ref().and_then(|upstream| upstream.keep_bytes);
        Ok(Self { listener, tls, keep, shared: Arc::new(Shared { store, uploads, users, proxy }) })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `shutdown` is done, then finishes open requests for at most ten seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let turns = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        let expiry = tokio::spawn(sessions::expire(self.shared.clone()));
        let eviction = self.keep.map(|keep| tokio::spawn(evict::watch(self.shared.clone(), keep)));
        tokio::pin!(shutdown);
        loop {
            let turn = match turns.clone().acquire_owned().await {
                Ok(turn) => turn,
                Err(_) => break,
            };
            let stream = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, most often: some are given back soon.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let (shared, tls, watcher) = (self.shared.clone(), self.tls.clone(), graceful.watcher());
            tokio::spawn(async move {
                let _turn = turn;
                match tls {
                    None => converse(stream, shared, watcher).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => converse(stream, shared, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    },
                }
            });
        }
        expiry.abort();
        if let Some(eviction) = eviction {
            eviction.abort();
        }
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(shared, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    // A client that goes away in the middle is no news.
    let _ = watcher.watch(connection).await;
}

/// Without TLS and users a registry is for this host only, unless it is said aloud.
fn refuse_strangers(options: &Options) -> Result<(), Error> {
    if options.open || options.listen.ip().is_loopback() {
        return Ok(());
    }
    let lacks = match (&options.tls, &options.htpasswd) {
        (None, _) => "TLS certificate",
        (_, None) => "file of users",
        _ => return Ok(()),
    };
    Err(Error::Open { address: options.listen, lacks })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn strangers_need_tls_and_a_password() {
        let options = |listen: &str, tls: bool, users: bool, open: bool| Options {
            listen: listen.parse().unwrap(),
            tls: tls.then(|| ("c".into(), "k".into())),
            htpasswd: users.then(|| "h".into()),
            open,
            upstream: None,
        };
        for (listen, tls, users, open, ok) in [
            ("127.0.0.1:0", false, false, false, true),
            ("[::1]:0", false, false, false, true),
            ("0.0.0.0:0", false, false, false, false),
            ("0.0.0.0:0", true, false, false, false),
            ("0.0.0.0:0", false, true, false, false),
            ("0.0.0.0:0", true, true, false, true),
            ("10.0.0.1:0", false, false, true, true),
        ] {
            assert_eq!(
                refuse_strangers(&options(listen, tls, users, open)).is_ok(),
                ok,
                "{listen} {tls} {users} {open}"
            );
        }
    }
}
