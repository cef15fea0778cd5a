//! Seccomp: a section is compiled once ([`cache`]) with libseccomp, and loaded as a program of our own.
//!
//! The runtime, not the container's process, finds or compiles the program: nothing of that is charged to the container,
//! and a section that cannot be compiled fails before there is a process.

mod cache;
mod compile;
mod notify;
mod stub;

use std::path::Path;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};
use sys::seccomp::{FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV};

pub use compile::{compile, notifies};
pub(crate) use notify::answer;

use crate::Result;
use crate::error::Context;
use crate::link::Link;
use cache::Cache;

/// The container's own copy, in its state directory.
pub(crate) const SAVED: &str = "seccomp.bpf";

/// A compiled section and how to load it.
pub(crate) struct Filter {
    program: Vec<u8>,
    flags: u32,
}

impl Filter {
    /// For a container that is being made: out of the store's cache, else compiled and put there.
    pub(crate) fn for_new(root: &Path, dir: &Path, section: &LinuxSeccomp) -> Result<Self> {
        let saved = dir.join(SAVED);
        let json =
            serde_json::to_vec(section).map_err(std::io::Error::from).step(|| "cannot encode linux.seccomp".into())?;
        let (cache, key) = (Cache::new(root), Cache::key(&json));
        let program = match cache.take(&key, &saved) {
            Some(program) => program,
            None => {
                let program = compile(section)?;
                // A cache that cannot be written costs time, nothing else.
                let linked = cache.put(&key, &program).is_ok() && cache.take(&key, &saved).is_some();
                if !linked {
                    cache::write(&saved, &program).step(|| format!("cannot write {}", saved.display()))?;
                }
                program
            }
        };
        Ok(Self { program, flags: flags(section) })
    }

    /// For `exec`: the container's own, compiled again if it is damaged.
    pub(crate) fn of_container(dir: &Path, section: &LinuxSeccomp) -> Result<Self> {
        let program = cache::read(&dir.join(SAVED)).map_or_else(|| compile(section), Ok)?;
        Ok(Self { program, flags: flags(section) })
    }

    /// Loads it into this process; a notify descriptor goes to the parent.
    pub(crate) fn load(&self, link: &Link) -> std::result::Result<(), String> {
        let failed = |e: std::io::Error| format!("error loading seccomp filter into kernel: {e}");
        let fd = match sys::seccomp::load(&self.program, self.flags) {
            // Before Linux 4.17 there was no such flag, and nothing for it to switch off.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && self.flags & FLAG_SPEC_ALLOW != 0 => {
                sys::seccomp::load(&self.program, self.flags & !FLAG_SPEC_ALLOW).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        fd.map_or(Ok(()), |fd| notify::tell(link, &fd))
    }
}

/// `SECCOMP_FILTER_FLAG_*` of a section. No list at all means `SPEC_ALLOW`, as for runc. Threads are not synchronised:
/// there is one.
fn flags(section: &LinuxSeccomp) -> u32 {
    let listener = if notifies(section) { FLAG_NEW_LISTENER } else { 0 };
    let Some(names) = section.flags() else { return listener | FLAG_SPEC_ALLOW };
    let bits = names.iter().map(|flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        // Without a listener nobody waits, and the kernel refuses the flag.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener == 0 => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
    });
    bits.fold(listener, |all, bit| all | bit)
}
