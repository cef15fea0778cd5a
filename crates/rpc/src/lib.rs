//! Plumbing that every tool shares: gRPC (bind, serve, connect, health, reflection, drain, error codes, peer
//! credentials), and how docker's plugins are found and asked. No tool's logic, and no protocol of its own.
//!
//! On disk: one unix socket per tool, `<run>/<tool>.sock`, mode 0600 (0660 with a group).
//!
//! ```no_run
//! # async fn example(svc: tonic::service::Routes) -> anyhow::Result<()> {
//! let path = rpc::socket_path(std::path::Path::new("/run/pier"), "network");
//! let listener = rpc::bind(&rpc::Listen::Unix(path), None)?;
//! rpc::Server::new(svc).serve(listener, rpc::shutdown_signal()).await?;
//! # Ok(()) }
//! ```
mod code;
mod connect;
mod door;
mod failure;
mod listen;
mod peer;
pub mod plugin;
mod server;
pub mod spawn;

pub use code::Code;
pub use connect::{connect, health, open, wait_serving};
pub use door::Door;
pub use failure::{Coded, Failure, explain, explain_own, status};
pub use listen::{Listen, Listener, bind};
pub use peer::Peer;
pub use server::{Server, TlsFiles, ready, shutdown_signal};

use std::path::{Path, PathBuf};

/// `<run>/<tool>.sock`; the engine's own is `<run>/pier.sock`.
pub fn socket_path(run: &Path, tool: &str) -> PathBuf {
    run.join(format!("{tool}.sock"))
}

/// Installs the TLS provider for this process, once. Programs call it first thing in `main`.
pub fn install_tls() {
    // Fails only when one is installed already: then there is nothing to do.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
