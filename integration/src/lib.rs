//! The harness of the black-box tests: programs by path, each test in namespaces of its own, and nothing left after it.
//!
//! A test calls [`isolated!`] with a closure over a [`Bed`]. The test process starts itself again for that one test under
//! `isolate.sh`: a new mount, network, pid and cgroup namespace with a reaping init. There the closure runs, everything it
//! started is stopped, and mounts, links, nft rules, cgroups and processes are compared with before: a leftover fails it.
//!
//! ```no_run
//! # fn example() -> integration::Result {
//! integration::isolated!(|bed| {
//!     bed.sh("pier-volume create data && pier-volume ls")?.ok()?.has("data")
//! })
//! # }
//! ```
mod bed;
#[cfg(target_arch = "x86_64")]
pub mod crash;
mod fixture;
mod isolate;
mod leftovers;
mod run;
#[cfg(target_arch = "x86_64")]
pub mod tracer;

pub use bed::{Bed, Daemon};
pub use fixture::Fixture;
pub use isolate::isolate;
pub use run::{Outcome, eventually};

/// What a test returns: `?` fails it.
pub type Result<T = ()> = anyhow::Result<T>;

/// Runs a closure over a [`Bed`] in namespaces of its own, under the name of the enclosing test.
#[macro_export]
macro_rules! isolated {
    ($body:expr) => {{
        fn here() {}
        $crate::isolate(std::any::type_name_of_val(&here), $body)
    }};
}
