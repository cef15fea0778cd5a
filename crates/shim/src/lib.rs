//! The process that outlives every daemon: one per container. It holds stdio and the terminal, writes the log, reaps,
//! and records the exit durably before it tells anybody.
//!
//! It is not a runtime (it calls one by its command line) and knows no policy: restarts, names and removal are the
//! supervisor's. One thread, one poll(2) loop, no async runtime.
//!
//! ```text
//! launch ─▶ created ─▶ running ─▶ ending: drain output, exit.json, tell waiters, runtime delete ─▶ gone
//!              └ control connection lost or start failed: runtime delete, nothing recorded but the reason
//! ```
//!
//! On disk, in the container's data directory: `bundle/config.json`, `bundle/rootfs` (mounted in the shim's own mount
//! namespace only), `exit.json`, the log. In the run directory: `shim.sock`, `run.json`, `init.pid`, runtime logs; and
//! the presence file, locked for as long as the shim lives.
//!
//! ```no_run
//! // Started by the supervisor with its control socket as descriptor 3.
//! std::process::exit(shim::run());
//! ```
mod client;
mod config;
mod console;
mod ending;
mod error;
mod event_loop;
mod json_log;
mod launch;
mod process;
mod requests;
mod runtime_cli;

pub use error::Error;

use std::os::unix::net::UnixStream;

use oci::shim::CONTROL_FD;

/// Runs a shim to its end; the exit status of the program.
pub fn run() -> i32 {
    if let Err(error) = sys::process::detach() {
        eprintln!("pier-shim: fork: {error}");
        return 125;
    }
    sys::process::close_from(CONTROL_FD as u32 + 1);
    sys::process::set_name("pier-shim");
    let control = match sys::process::inherited_fd(CONTROL_FD) {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => {
            eprintln!("pier-shim is started by pier-supervisor, which passes a socket as descriptor {CONTROL_FD}");
            return 125;
        }
    };
    match launch::prepare(control).and_then(event_loop::Shim::run) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("pier-shim: {}", error::chain(&error));
            1
        }
    }
}
