//! Contract suites: what a client may rely on of each service, run against any address that serves it.
//!
//! The same suite runs against a tool's own socket and against the engine's pass-through, so the two cannot differ. It is a
//! dev-dependency only and has no test double: the implementations under test are the real ones.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let path = rpc::socket_path(std::path::Path::new("/run/pier"), "volume");
//! let channel = rpc::connect(&path, std::time::Duration::from_secs(5)).await?;
//! testkit::contract::volume(channel).await
//! # }
//! ```
pub mod contract;

use anyhow::{Result, ensure};
use rpc::{Code, Failure};

/// Fails unless the call failed with this code and reason.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, code: Code, reason: &str) -> Result<()> {
    let failure = match answer {
        Ok(value) => anyhow::bail!("expected {reason}, got {value:?}"),
        Err(status) => Failure::from(status),
    };
    ensure!(failure.code == code, "{reason}: code {:?} instead of {code:?}: {failure:?}", failure.code);
    ensure!(failure.reason == reason, "reason {:?} instead of {reason:?}: {failure:?}", failure.reason);
    ensure!(!failure.message.is_empty(), "{reason} has no message");
    Ok(())
}
