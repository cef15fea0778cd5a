//! `linux.intelRdt`: cache and memory bandwidth classes, through libcontainer, on kernels with resctrl mounted.

use std::path::PathBuf;

use libcontainer::process::intel_rdt::{find_resctrl_mount_point, setup_intel_rdt};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::hook::chain;
use crate::{Error, Result};

/// Refuses a class that this machine cannot give.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let wanted = spec.linux().as_ref().is_some_and(|l| l.intel_rdt().is_some());
    if wanted && find_resctrl_mount_point().is_err() {
        return Err(Error::Refused("intelRdt is specified in config, but Intel RDT is not enabled".into()));
    }
    Ok(())
}

/// Puts a process into its class; returns the directories that end with the container, the inner ones first.
pub(crate) fn join(spec: &Spec, id: &str, pid: i32) -> Result<Vec<PathBuf>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()) else { return Ok(vec![]) };
    let made = setup_intel_rdt(Some(id), &Pid::from_raw(pid), rdt);
    let (class, monitoring) = made.map_err(|e| Error::Refused(format!("intelRdt: {}", chain(&e))))?;
    Ok([monitoring, class].into_iter().flatten().collect())
}

/// Removes such directories; those that are gone are no error.
///
/// # Errors
/// [`Error::Step`] naming the directory.
pub(crate) fn leave(directories: &[PathBuf]) -> Result<()> {
    for directory in directories {
        match std::fs::remove_dir(directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::step(format!("cannot remove {}", directory.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}
