//! docker's plugin protocol: where plugins are found, and how one is asked: a POST of JSON for each call, over a unix
//! socket or TCP with or without TLS. What is asked is the caller's business.
//! <https://docs.docker.com/engine/extend/plugin_api/>
//!
//! A plugin is never waited for longer than the caller's limit.

mod discover;
mod post;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

pub use discover::{Address, Tls, all, find};
pub use post::call;

/// docker's directories, in the order they are looked through.
pub fn directories() -> Vec<PathBuf> {
    ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"].map(PathBuf::from).to_vec()
}

/// Why there is no answer to go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It did not come within this time.
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    /// The plugin cannot be reached, or it said no.
    #[error("{0}")]
    Said(String),
}

/// Asks a plugin, and waits. `method` is the part of the path after the slash: `VolumeDriver.Create`.
///
/// # Errors
/// [`Problem`].
pub fn ask(address: &Address, method: &str, body: &Value, limit: Duration) -> Result<Value, Problem> {
    within(limit, call(address, method, body))
}

/// Waits for an answer, in a runtime of its own, for as long as `limit`.
///
/// # Errors
/// [`Problem`].
pub fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::Said(error.to_string()))?;
    let answer = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    // A lookup of a name or the like must not hold us longer.
    runtime.shutdown_background();
    answer.unwrap_or(Err(Problem::Silent(limit)))
}

/// Says hello, which a plugin answers with what it is. `kind` is what it has to be: `VolumeDriver`.
///
/// # Errors
/// [`Problem`]; [`Problem::Said`] when it is something else.
pub fn activate(address: &Address, kind: &str, limit: Duration) -> Result<(), Problem> {
    let answer = ask(address, "Plugin.Activate", &json!({}), limit)?;
    let kinds = answer["Implements"].as_array().cloned().unwrap_or_default();
    if kinds.iter().any(|is| is == kind) {
        return Ok(());
    }
    Err(Problem::Said(format!("it is no {kind}: it implements {}", Value::from(kinds))))
}
