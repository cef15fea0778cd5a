//! The way of a notify descriptor to the agent that the configuration names.
//!
//! The process that loads the filter must say that it has one, while the filter may already trap any system call but
//! write(2). So it writes the descriptor's number, and the runtime takes a copy out of it with pidfd_getfd(2).

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde_json::json;

use crate::error::Context;
use crate::link::{self, Link, Message, Tag};
use crate::state::Record;
use crate::{Error, Result};

/// Answers a process that has loaded a filter with a listener: takes the descriptor and hands it over.
pub(crate) fn answer(
    link: &Link,
    message: &Message,
    process: (i32, &OwnedFd),
    spec: &Spec,
    record: &Record,
    status: &str,
) -> Result<()> {
    let gone = || "the container's process has gone".into();
    let (pid, pidfd) = process;
    let number = message.text.parse().map_err(|_| Error::Init("seccomp: no notify descriptor".into()))?;
    let fd = match pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()) {
        Ok(fd) => fd,
        // Without privilege over it, it has to send the descriptor itself.
        Err(rustix::io::Errno::PERM) => {
            link.send(Tag::Notify, "send").step(gone)?;
            let sent = link.receive().step(gone)?.and_then(|m| m.fd);
            sent.ok_or_else(|| Error::Init("seccomp: no notify descriptor".into()))?
        }
        Err(e) => return Err(Error::step("seccomp: pidfd_getfd", e)),
    };
    hand_over(spec, record, status, pid, &fd)?;
    link.send(Tag::Notify, "").step(gone)
}

/// The other side of [`answer`], in the process with the filter.
pub(super) fn tell(link: &Link, fd: &OwnedFd) -> std::result::Result<(), String> {
    use std::os::fd::AsRawFd;
    let failed = |e: std::io::Error| format!("seccomp: {e}");
    link.write(Tag::Notify, &fd.as_raw_fd().to_string()).map_err(failed)?;
    if link.read(Tag::Notify).map_err(failed)? == "send" {
        link.send_with(Tag::Notify, "", Some(fd.as_fd())).map_err(failed)?;
        link.read(Tag::Notify).map_err(failed)?;
    }
    Ok(())
}

/// Sends the descriptor with the container process state of the runtime specification (config-linux.md, seccomp).
fn hand_over(spec: &Spec, record: &Record, status: &str, pid: i32, fd: &OwnedFd) -> Result<()> {
    let filter = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let path = filter.and_then(|f| f.listener_path().as_ref());
    let path = path.ok_or_else(|| Error::Refused("SCMP_ACT_NOTIFY needs seccomp.listenerPath".into()))?;
    let message = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": filter.and_then(|f| f.listener_metadata().as_deref()).unwrap_or_default(),
        "state": {
            "ociVersion": record.oci_version, "id": record.id, "status": status, "pid": pid,
            "bundle": record.bundle, "annotations": record.annotations,
        }
    });
    let failed =
        || format!("failed to connect with seccomp agent specified in the seccomp profile: {}", path.display());
    let socket = link::connect(path).step(failed)?;
    link::send_fd(&socket, message.to_string().as_bytes(), fd.as_fd()).step(failed)
}
