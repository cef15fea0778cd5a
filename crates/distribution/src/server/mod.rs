//! The store as a small OCI registry (distribution-spec 1.1): push, pull, ranges, mounts, tags, referrers, deletion, and a
//! cache of an upstream.
//!
//! Names follow docker's rules: `busybox`, `library/busybox` and `docker.io/library/busybox` are one repository. A registry
//! over the tool's own store also offers the store's images under their names, with the signatures that belong to them; what is pushed is kept by the registry's own
//! rows (`catalog`) and becomes an image of the store when it is pulled, without a byte being copied.
//!
//! - `route`: which endpoint a request means (pure);
//! - `catalog`: what each repository has: rows of the store's database, roots of garbage collection;
//! - `offered`: what the store's images add to it;
//! - `sessions`: unfinished uploads, files that survive a restart;
//! - `proxy`: what a cache fetches from its upstream, once for all who wait; `evict`: what it gives up;
//! - `upload`, `blobs`, `manifests`, `lists`: the endpoints;
//! - `auth`, `tls`, `listen`: who may come in, and how.
//!
//! Nothing is visible before it is whole: a blob's row and its name in the store appear in one transaction, after its bytes
//! were verified and synced.

mod auth;
mod blobs;
pub(crate) mod catalog;
mod error;
mod evict;
mod listen;
mod lists;
mod manifests;
pub(crate) mod mirror;
mod offered;
mod proxy;
mod reply;
mod route;
mod sessions;
mod tls;
mod upload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;

use crate::{Store, registry};

pub use error::Error;
pub use listen::Server;
use reply::{Refusal, Reply};
use route::Route;

/// How a registry is offered.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate chain and private key, PEM; none: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Users: lines of `name:bcrypt hash`, as `htpasswd -B` writes them; none: everybody.
    pub htpasswd: Option<PathBuf>,
    /// Serve others than this host without TLS or without users.
    pub open: bool,
    /// The upstream of a cache.
    pub upstream: Option<Upstream>,
}

/// What a cache stands in for.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// "docker.io", "https://registry.example.org", "http://127.0.0.1:5000".
    pub url: String,
    /// How it is reached.
    pub options: registry::Options,
    /// Bytes on disk that are kept of it, what was asked for least recently goes first; none: no limit.
    pub keep_bytes: Option<u64>,
}

/// Everything that a request needs.
struct Shared {
    store: Store,
    uploads: sessions::Uploads,
    users: Option<auth::Users>,
    proxy: Option<proxy::Proxy>,
}

type Incomer = Request<Incoming>;

/// Answers a request; whatever goes wrong becomes the specification's error envelope.
async fn answer(shared: Arc<Shared>, request: Incomer) -> Reply {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let head = method == Method::HEAD;
    let reply = dispatch(shared, request).await.unwrap_or_else(|refusal| refusal.into_reply(head));
    tracing::debug!(%method, path, status = reply.status().as_u16(), "answered");
    reply
}

async fn dispatch(shared: Arc<Shared>, request: Incomer) -> Result<Reply, Refusal> {
    if let Some(users) = &shared.users {
        users.check(request.headers()).await?;
    }
    let route = Route::parse(request.uri().path())?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if shared.proxy.is_some() && !reads {
        return Err(Refusal::unsupported("this registry is a cache: it is read only"));
    }
    let at = At { shared, query: route::query(request.uri()) };
    let get_or_head = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
    match (request.method().clone(), route) {
        (method, Route::Base) if get_or_head(&method) => Ok(reply::json(&serde_json::json!({}))),
        (method, Route::Catalog) if get_or_head(&method) => at.repositories().await,
        (method, Route::Tags(name)) if get_or_head(&method) => at.tags(name).await,
        (method, Route::Referrers(name, digest)) if get_or_head(&method) => at.referrers(name, digest).await,
        (method, Route::Manifest(name, reference)) => match method {
            Method::GET => at.manifest(name, reference, true).await,
            Method::HEAD => at.manifest(name, reference, false).await,
            Method::PUT => at.put_manifest(name, reference, request).await,
            Method::DELETE => at.delete_manifest(name, reference).await,
            _ => Err(Refusal::method()),
        },
        (method, Route::Blob(name, digest)) => match method {
            Method::GET | Method::HEAD => at.blob(name, digest, &request).await,
            Method::DELETE => at.delete_blob(name, digest).await,
            _ => Err(Refusal::method()),
        },
        (Method::POST, Route::Uploads(name)) => at.begin(name, request).await,
        (method, Route::Upload(name, id)) => match method {
            Method::GET | Method::HEAD => at.status(name, id).await,
            Method::PATCH => at.append(name, id, request).await,
            Method::PUT => at.finish(name, id, request).await,
            Method::DELETE => at.cancel(name, id).await,
            _ => Err(Refusal::method()),
        },
        _ => Err(Refusal::method()),
    }
}

/// One request's surroundings.
struct At {
    shared: Arc<Shared>,
    query: route::Query,
}

impl At {
    /// A cache keeps longest what was asked for last.
    async fn note_use(&self, digest: &oci::Digest) -> Result<(), Refusal> {
        if self.shared.proxy.is_none() {
            return Ok(());
        }
        let digest = digest.clone();
        self.call(move |store| {
            evict::used(store, &digest);
            Ok(())
        })
        .await
    }

    /// Runs work on the store on a thread for that.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> crate::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.shared.store.clone();
        Ok(crate::transport::pump::blocking(move || work(&store)).await?)
    }
}
