//! A directory or a file below a volume's root that stays below it, whatever links the volume's users made.

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
    let found = sys::beneath::open(root, subpath.as_ref()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refused("no such file or directory"),
        ErrorKind::NotADirectory => refused("it leads through a file"),
        ErrorKind::CrossesDevices => refused("it leaves the volume"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            refused("this kernel follows no link safely")
        }
        _ => Error::Io { step: "open", path: root.join(subpath), source: error },
    })?;
    let found = Handle::from(found);
    match found.metadata()?.file_type() {
        kind if kind.is_dir() || kind.is_file() => Ok(found),
        _ => Err(refused("neither a directory nor a file")),
    }
}
