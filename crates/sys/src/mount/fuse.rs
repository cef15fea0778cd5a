//! fuse-overlayfs(1) where the kernel refuses its own overlay.
//!
//! The mount is made here, with a connection that the program inherits (libfuse takes `/dev/fd/N` for a mount point), so
//! that it is there when this returns. The program leaves for a mount namespace without the mount: nothing but the mount's
//! users keep it alive, and with the last of them the kernel closes the connection and the program ends.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use super::{Mount, Plan, said, unmount};
use crate::userns::IdMaps;

const PROGRAM: &str = "fuse-overlayfs";

/// Mounts on `target`; the program's descriptors are open when this returns.
pub(super) fn mount(mount: &Mount, plan: &Plan<'_>, target: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let connection = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|e| said(e, "/dev/fuse"))?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let number = connection.as_raw_fd();
    // The kernel checks modes, as it does on any file system; whoever the container runs as may use it.
    let data = format!("fd={number},rootmode=40000,user_id={uid},group_id={gid},allow_other,default_permissions");
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    let kind = format!("fuse.{PROGRAM}");
    rustix::mount::mount(&mount.source, target, kind.as_str(), plan.flags & !MountFlags::BIND, Some(data.as_c_str()))
        .map_err(|e| said(e, "fuse"))?;
    serve(plan, target, &connection).inspect_err(|_| drop(unmount(target)))
}

/// Starts the program, which answers when it has opened everything and gone into the background.
fn serve(plan: &Plan<'_>, target: &Path, connection: &OwnedFd) -> io::Result<()> {
    let mut options: Vec<String> = plan.rest.iter().map(|option| (*option).to_owned()).collect();
    if let Some(ids) = &plan.ids {
        options.extend(mappings(ids));
    }
    let number = connection.as_raw_fd();
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(options.join(",")).arg(format!("/dev/fd/{number}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let target = CString::new(target.as_os_str().as_encoded_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the closure makes only system calls on data that was made before the fork.
    unsafe {
        command.pre_exec(move || {
            let failed = libc::unshare(libc::CLONE_NEWNS) != 0
                || libc::mount(
                    std::ptr::null(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_PRIVATE | libc::MS_REC,
                    std::ptr::null(),
                ) != 0
                || libc::umount2(target.as_ptr(), libc::MNT_DETACH) != 0
                || libc::fcntl(number, libc::F_SETFD, 0) != 0;
            if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let done = command.output().map_err(|e| io::Error::new(e.kind(), format!("{PROGRAM}: {e}")))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr);
    let last = words.lines().last().unwrap_or_default();
    Err(io::Error::other(format!("{PROGRAM} ended with {}: {last}", done.status)))
}

/// The program's own words for mapped ids: inside, outside, how many, and again.
fn mappings(ids: &IdMaps) -> [String; 2] {
    let text = |lines: &str| lines.trim().replace([' ', '\n'], ":");
    [format!("uidmapping={}", text(&ids.uids)), format!("gidmapping={}", text(&ids.gids))]
}
