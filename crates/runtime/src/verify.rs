//! Masked and read-only paths, looked at by the runtime before a container may start.
//!
//! The container's process masks with descriptors and checks what it masks with. Still, whoever shares the rootfs may move
//! things meanwhile (CVE-2025-31133, GHSA-3q8j-pf29-vwv8): what counts is what is there in the end. Two to four system
//! calls for each path that exists.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, StatVfsMountFlags, fstat, fstatfs, fstatvfs};

use crate::error::words;
use crate::inroot::Root;
use crate::{Error, Result};

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

/// Checks the container whose root directory is `root`.
pub(crate) fn paths(root: OwnedFd, spec: &Spec) -> Result<()> {
    let wrong = |path: &str, what: &str| Err(Error::Init(format!("{path} is not {what} in the container")));
    if spec.root().as_ref().and_then(|r| r.readonly()) == Some(true) && !is_readonly(&root)? {
        return wrong("/", "read-only");
    }
    let root = Root::new(root);
    let Some(linux) = spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().iter().flatten() {
        if !find(&root, path)?.is_none_or(|fd| is_readonly(&fd).unwrap_or(false)) {
            return wrong(path, "read-only");
        }
    }
    for path in linux.masked_paths().iter().flatten() {
        if !find(&root, path)?.is_none_or(|fd| is_masked(&fd).unwrap_or(false)) {
            return wrong(path, "masked");
        }
    }
    Ok(())
}

/// What an ordinary user's runtime cannot see, its container cannot either.
fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>> {
    match root.find(Path::new(path)) {
        Ok(found) => Ok(found),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => Ok(None),
        Err(e) => Err(Error::Init(format!("{path} cannot be checked: {}", words(e)))),
    }
}

fn is_readonly(fd: &OwnedFd) -> Result<bool> {
    let flags = fstatvfs(fd).map_err(|e| Error::step("statfs in the container", e))?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

/// The null device, or an empty tmpfs that nobody can write to.
fn is_masked(fd: &OwnedFd) -> Result<bool> {
    let failed = |e| Error::step("stat in the container", e);
    let stat = fstat(fd).map_err(failed)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == rustix::fs::makedev(1, 3),
        FileType::Directory => fstatfs(fd).map_err(failed)?.f_type == TMPFS && is_readonly(fd)?,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(linux: serde_json::Value) -> Result<()> {
        let root = std::fs::File::open("/").unwrap();
        let spec = json!({"ociVersion": "1.2.0", "linux": linux});
        paths(root.into(), &serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn this_machine_is_not_masked() {
        check(json!({"maskedPaths": ["/dev/null", "/no/such", "/etc/passwd/x"]})).unwrap();
        let error = |linux| check(linux).unwrap_err().to_string();
        assert!(error(json!({"maskedPaths": ["/etc"]})).contains("/etc is not masked"));
        assert!(error(json!({"maskedPaths": ["/dev/zero"]})).contains("/dev/zero is not masked"));
        assert!(error(json!({"readonlyPaths": ["/proc"]})).contains("/proc is not read-only"));
    }
}
