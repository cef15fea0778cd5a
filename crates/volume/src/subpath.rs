//! A directory below a volume's root that stays below it, whatever links the volume's users made.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The host path of `subpath` in `root`. The kernel resolves it: a link out of the volume is refused.
pub(crate) fn resolve(name: &str, root: &Path, subpath: &str) -> Result<PathBuf> {
    let refused = |why: &str| Error::Subpath { name: name.into(), subpath: subpath.into(), why: why.into() };
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
        return Err(refused("it must be relative and without '..'"));
    }
    let found = sys::beneath::open_directory(root, subpath.as_ref()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refused("no such directory"),
        ErrorKind::NotADirectory => refused("not a directory"),
        ErrorKind::CrossesDevices => refused("it leaves the volume"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            refused("this kernel follows no link safely")
        }
        _ => Error::Io { step: "open", path: root.join(subpath), source: error },
    })?;
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    std::fs::read_link(&link).map_err(Error::io("read", link))
}
