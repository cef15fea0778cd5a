//! A directory below a volume's root that stays below it, whatever links the volume's users made.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Error, Result};

/// The host path of `subpath` in `root`. The kernel resolves it: a link out of the volume is refused.
pub(crate) fn resolve(name: &str, root: &Path, subpath: &str) -> Result<PathBuf> {
    let refused = |why: &str| Error::Subpath { name: name.into(), subpath: subpath.into(), why: why.into() };
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(refused("it must be relative and without '..'"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(Error::io("open", root))?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found =
        rustix::fs::openat2(&directory, subpath, flags, Mode::empty(), inside).map_err(|error| match error {
            rustix::io::Errno::NOENT => refused("no such directory"),
            rustix::io::Errno::NOTDIR => refused("not a directory"),
            rustix::io::Errno::XDEV => refused("it leaves the volume"),
            other => Error::Io { step: "open", path: root.join(subpath), source: other.into() },
        })?;
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    std::fs::read_link(&link).map_err(Error::io("read", link))
}
