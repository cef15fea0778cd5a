//! The keeper: the one process of a stack that stays while somebody is attached, whoever attached them.
//!
//! It serves names, holds the firewall's [guard], and writes the firewall's table again when somebody flushed it. An
//! attach starts it and a daemon watches over it, but neither is needed by it: it reads the records, so that a
//! daemon may die at any moment and no name is lost with it. The last endpoint gone, it ends after a moment.
//!
//! `<run>/keeper.lock` (flock) makes it the only one. `<run>/keeper.sock` is how others talk to it: who connects gets
//! the line `ok` as soon as what was recorded before is served, and the end of the stream when the keeper is gone. It
//! stays at least as long as somebody is connected. A line sent to it is the path of the resolv.conf to use.
//!
//! When a newer program lies where it was started from, it goes on as that, without a gap ([`handover`]).

mod client;
pub(crate) mod guard;
mod handover;
mod run;

pub(crate) use client::{Start, connect};
pub use run::keep;
