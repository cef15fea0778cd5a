//! Keeps containers alive and observed: records, lifecycle, restarts, logs, exec, attach, stats, events.
//!
//! It is not a runtime (a shim drives one by its command line), makes no image, no network and no volume: it consumes
//! mounts, an OCI configuration and a network namespace path. Truth comes from the kernel (the shim's lock and pidfd,
//! cgroup files) and from `exit.json`; several processes may use one root at once.
//!
//! ```text
//! created ─start─▶ running ⇄ paused        exited ─policy─▶ restarting ─▶ running
//!                    └─ exit ─▶ exited ─rm─▶ removing ─▶ gone        a damaged record: dead
//! ```
//!
//! ```text
//! <root>/containers/<id>/   spec.json   what is to run (name, restart policy and extension change)
//!                           oci.json    the OCI configuration as given
//!                           state.json  counters and wishes: run number, restarts, stopped by a user
//!                           exit.json   the last run's end, written by the shim
//!                           files/<n>   injected files    log/container.log[.n]    bundle/    lock
//! <root>/names/<name>       holds the id; created with link(2), so a name has one owner
//! <root>/events/journal     one JSON object a line, rotated; shims append too
//! <run>/shims/<id>          locked by a live shim         <run>/<id>/  its socket and run.json
//! <run>/runtime/            the OCI runtime's own state
//! ```
//!
//! ```no_run
//! let supervisor = supervisor::Supervisor::open(supervisor::Config {
//!     root: "/var/lib/pier/supervisor".into(),
//!     run: "/run/pier/supervisor".into(),
//!     shim: "/usr/libexec/pier/pier-shim".into(),
//!     runtime: "pier-runtime".into(),
//!     search: vec!["/usr/libexec/pier".into(), "/usr/bin".into()],
//! })?;
//! for container in supervisor.list()? {
//!     println!("{} {:?}", container.name(), container.observed.status);
//! }
//! # Ok::<(), supervisor::Error>(())
//! ```
mod attach;
mod convert;
mod copy;
mod daemon;
mod definition;
mod error;
mod events;
mod exec;
mod filter;
mod health;
mod kill;
mod logs;
mod observe;
mod processes;
mod recovery;
mod remove;
mod restart;
mod service;
mod shim_client;
mod signal;
mod start;
mod stats;
mod status;
mod store;
mod wait;

pub use attach::{AttachOptions, Attached, Input, InputSender, Output, Pending, Streams};
pub use convert::{definition_from, to_container};
pub use copy::{CopyToOptions, PathStat, Pieces};
pub use daemon::Daemon;
pub use definition::{Definition, Extension, Healthcheck, InjectedFile, LogConfig, RestartMode, RestartPolicy};
pub use error::{Error, StartFailure};
pub use exec::{ExecOptions, Executed};
pub use kill::StopOptions;
pub use logs::{LogEntry, LogOptions, LogStream};
pub use observe::Container;
pub use processes::ProcessTable;
pub use remove::UpdateOptions;
pub use service::Service;
pub use start::StartOptions;
pub use stats::Sample;
pub use status::{Observed, Status};
pub use wait::Condition;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use store::Store;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data that outlives a reboot: `<root>/supervisor`.
    pub root: PathBuf,
    /// Sockets and what a reboot may take: `<run>/supervisor`.
    pub run: PathBuf,
    /// The shim's program.
    pub shim: PathBuf,
    /// OCI runtime for containers that name none: a name or a path.
    pub runtime: String,
    /// Directories where runtimes are looked for by name.
    pub search: Vec<PathBuf>,
}

/// The containers of one root.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    store: Store,
    /// Clients that attached before the start, by container.
    early: Mutex<HashMap<String, Vec<attach::Early>>>,
}

impl Supervisor {
    /// Opens (and makes) the directories.
    pub fn open(config: Config) -> Result<Self, Error> {
        let store = Store::open(&config.root, &config.run)?;
        let inner = Inner { config, store, early: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// As given to [`Supervisor::open`].
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    fn early(&self) -> MutexGuard<'_, HashMap<String, Vec<attach::Early>>> {
        self.inner.early.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Internal { step: "a task", message: error.to_string() }),
    }
}

/// A descriptor that this owns, for waiting until it is readable.
#[allow(deprecated)] // Its replacement is an unsafe function; `T` here owns its descriptor and never swaps it.
pub(crate) fn watch_fd<T: std::os::fd::AsRawFd>(
    fd: T,
    step: &'static str,
) -> Result<tokio::io::unix::AsyncFd<T>, Error> {
    tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).map_err(Error::system(step))
}
