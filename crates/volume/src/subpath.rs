//! A directory below a volume's root that stays below it, whatever links the volume's users made.

use std::io::ErrorKind;
use std::path::Path;

use crate::handle::Handle;
use crate::{Error, Result};

/// Opens `subpath` in `root`. The kernel resolves it: a link out of the volume is refused.
pub(crate) fn open(name: &str, root: &Path, subpath: &str) -> Result<Handle> {
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
    Ok(found.into())
}
