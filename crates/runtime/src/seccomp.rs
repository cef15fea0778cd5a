//! Seccomp: the filter is built and loaded by libcontainer (libseccomp); the notify descriptor goes to its listener.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::json;

use crate::error::Context;
use crate::link::{self, Link, Tag};
use crate::state::Record;
use crate::{Error, Result};

/// Loads the filter into this process, and hands a notify descriptor to the parent if there is one.
pub(crate) fn load(filter: &LinuxSeccomp, link: &Link) -> std::result::Result<(), String> {
    let fd = libcontainer::seccomp::initialize_seccomp(filter)
        .map_err(|e| format!("seccomp: {}", crate::hook::chain(&e)))?;
    if let Some(raw) = fd {
        let fd = sys::clone::adopt_fd(raw).map_err(|e| format!("seccomp: notify descriptor: {e}"))?;
        link.send_with(Tag::Notify, "", Some(fd.as_fd())).map_err(|e| format!("seccomp: {e}"))?;
        link.expect(Tag::Notify).map_err(|e| format!("seccomp: {e}"))?;
    }
    Ok(())
}

/// Hands the descriptor to the listener that the configuration names.
pub(crate) fn hand_over(spec: &Spec, record: &Record, status: &str, pid: i32, fd: Option<impl AsFd>) -> Result<()> {
    let filter = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let (Some(filter), Some(fd)) = (filter, fd) else {
        return Err(Error::Init("seccomp: no notify descriptor".into()));
    };
    let path =
        filter.listener_path().as_ref().ok_or_else(|| Error::Refused("seccomp notify needs listenerPath".into()))?;
    let message = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": filter.listener_metadata().clone().unwrap_or_default(),
        "state": {
            "ociVersion": record.oci_version, "id": record.id, "status": status, "pid": pid,
            "bundle": record.bundle, "annotations": record.annotations,
        }
    });
    let failed = || format!("cannot reach the seccomp listener {}", path.display());
    let socket = link::connect(path).step(failed)?;
    link::send_fd(&socket, message.to_string().as_bytes(), fd.as_fd()).step(failed)
}
