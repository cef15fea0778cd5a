//! Runs a graph: what the target needs, in parallel, each operation once, from the cache where possible.
//!
//! The solver knows vertices, keys and results. What an operation does, what a result is and where the cache lives
//! is behind [`Op`] and [`Cache`], so it is tested with fakes.

mod flight;
mod key;
mod schedule;

pub use flight::Flights;
pub use key::{Key, KeyWriter};
pub use schedule::{Outcome, Solver, Task};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::progress::Sink;

/// One operation, ready to run.
pub trait Op<R>: Send + Sync {
    /// False for sources: they are resolved anew each time, and their results carry the identity of their content.
    fn cacheable(&self) -> bool;

    /// The identity of what this operation would make of `inputs`.
    fn key<'a>(&'a self, inputs: &'a [R]) -> BoxFuture<'a, Result<Key, Error>>;

    /// Makes the outputs. Returns soon after `context.cancel`, and leaves nothing behind on any error.
    fn run<'a>(&'a self, inputs: &'a [R], context: &'a Context) -> BoxFuture<'a, Result<Vec<R>, Error>>;
}

/// Where results of earlier runs are found.
pub trait Cache<R>: Send + Sync {
    /// The outputs recorded under a key, if they still exist.
    fn lookup<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<R>>, Error>>;

    /// Remembers outputs.
    fn record<'a>(&'a self, key: &'a Key, name: &'a str, outputs: &'a [R]) -> BoxFuture<'a, Result<(), Error>>;
}

/// What a running operation gets.
#[derive(Debug, Clone)]
pub struct Context {
    /// Digest of the vertex.
    pub digest: String,
    /// Its key.
    pub key: Key,
    /// Where its output goes.
    pub sink: Sink,
    /// Set when the build ends early.
    pub cancel: CancellationToken,
}
