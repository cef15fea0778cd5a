//! `pier-runtime`: turns an OCI bundle into a process.
//!
//! It is the mechanism below every container engine: namespaces, cgroups, mounts, credentials, one process. It is not a
//! supervisor: nothing of it stays behind when a verb returns, it keeps no logs and restarts nothing.
//!
//! Parts of youki's `libcontainer` are used as blocks (consoles, network devices, Intel RDT, personality, validation), in
//! an order and around a clone of our own, because its builders read the bundle twice, keep state in place and lose
//! seccomp and the user namespace in `exec`. Rules that can be pure functions are: [`harden`] turns a configuration into
//! one that is safe to run, [`cgroup::v1`] turns limits into a list of writes.
//!
//! State on disk, per container, under the runtime's root (0700): `<root>/<id>/state.json` (written once by rename),
//! `config.json` (the hardened configuration, so that a bundle edited later changes nothing; it comes after the cgroups and
//! says that they are the container's own), `seccomp.bpf` (its compiled seccomp section) and `exec.fifo` (there as long as the
//! container is `created`; one byte written into it starts the program). Beside them `<root>/.cache/seccomp`: compiled
//! sections by hash, so that a profile is compiled once; it may be removed at any time.
//!
//! Everything that makes a process must run in a single-threaded program; it refuses otherwise.
//!
//! ```no_run
//! use runtime::{create, state::Store};
//! let store = Store::new("/run/pier/runtime".into());
//! let options = create::Options { bundle: "/bundle".into(), ..Default::default() };
//! create::create(&store, "web", &options, &mut |warning| eprintln!("{warning}"))?;
//! runtime::start::start(&store, "web")?;
//! # Ok::<(), runtime::Error>(())
//! ```

pub mod bundle;
mod capability;
pub mod cgroup;
pub mod checkpoint;
mod convert;
mod copy_up;
pub mod create;
mod credentials;
pub mod criu;
mod dbus;
pub mod delete;
mod device;
mod environment;
mod errand;
mod error;
pub mod events;
pub mod exec;
pub mod features;
mod foreground;
pub mod harden;
mod hook;
pub mod id;
mod init;
mod inroot;
mod kernel_file;
mod key_case;
pub mod kill;
mod link;
mod lsm;
mod mask;
mod memory_policy;
mod mount_option;
mod mount_table;
mod mounting;
mod namespace;
mod net_device;
pub mod notify_socket;
pub mod pause;
pub mod process;
pub mod ps;
mod rdt;
pub mod restore;
mod rootfs;
pub mod seal;
pub mod seccomp;
pub mod service;
pub mod signal;
mod source;
pub mod spec;
mod stage;
pub mod start;
pub mod state;
mod sysctl;
mod terminal;
mod tree;
pub mod update;
mod verify;

pub use error::{Error, Result};
