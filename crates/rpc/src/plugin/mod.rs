//! docker's plugin protocol: where plugins are found, and how one is asked: a POST of JSON for each call, over a unix
//! socket or TCP with or without TLS. What is asked is the caller's business.
//! <https://docs.docker.com/engine/extend/plugin_api/>
//!
//! A plugin is never waited for longer than the caller's limit.

mod discover;
mod post;

use std::future::Future;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

pub use discover::{Address, Tls, all, find};
pub use post::call;

/// docker's directories, in the order they are looked through.
pub fn directories() -> Vec<PathBuf> {
    ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"].map(PathBuf::from).to_vec()
}

/// How long an answer that nobody waits for any more may still come.
const LATE: Duration = Duration::from_secs(60);

/// Why there is no answer to go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It did not come within this time.
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    /// Nobody is at its address: a later try may find it.
    #[error("connect: {0}")]
    Unreachable(String),
    /// It cannot be asked, or it said no.
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

/// As [`ask`], for a call that gives something away. An answer that comes after the limit, within a minute and while
/// this process lives, goes to `late`: what it gives has to go back.
///
/// # Errors
/// [`Problem`].
pub fn ask_or_late(
    address: &Address,
    method: &str,
    body: &Value,
    limit: Duration,
    late: impl FnOnce(&Value) + Send + 'static,
) -> Result<Value, Problem> {
    let (address, method, body) = (address.clone(), method.to_owned(), body.clone());
    // Without room: an answer is either taken, or known not to be.
    let (sender, receiver) = mpsc::sync_channel(0);
    let worker = move || {
        let answer = ask(&address, &method, &body, limit + LATE);
        if let Err(mpsc::SendError(Ok(answer))) = sender.send(answer) {
            late(&answer);
        }
    };
    std::thread::Builder::new().name("plugin".into()).spawn(worker).map_err(|e| Problem::Said(e.to_string()))?;
    receiver.recv_timeout(limit).unwrap_or(Err(Problem::Silent(limit)))
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
