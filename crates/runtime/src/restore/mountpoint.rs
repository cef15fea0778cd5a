//! The root that CRIU puts the container on, and the mount points that may have gone since the checkpoint. Runs in a
//! private mount namespace that ends with CRIU, so that nothing can be left behind.

use std::fs::Permissions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{Mount, Spec};
use pathrs::Root;
use pathrs::flags::OpenFlags;

use crate::criu::mounts::is_cgroup_v1;
use crate::harden::is_bind;
use crate::mounting::Step;
use crate::state::Record;

/// Binds the rootfs to `root` (CRIU wants a mount point) and makes the mount points that are missing.
pub(super) fn prepare(spec: &Spec, record: &Record, root: &Path) -> Step {
    let none: Option<&str> = None;
    // What the host mounts later still arrives, for the sake of volumes that ask for it.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(|e| format!("propagation of /: {e}"))?;
    bind(&record.rootfs, root)?;
    for entry in wanted(spec, record) {
        one(root, entry).map_err(|e| format!("mount point {}: {e}", entry.destination().display()))?;
    }
    // The mounts were there to make mount points inside mounts: CRIU makes its own.
    umount2(root, MntFlags::MNT_DETACH).map_err(|e| format!("{}: {e}", root.display()))?;
    bind(&record.rootfs, root)
}

fn bind(source: &Path, target: &Path) -> Step {
    let none: Option<&str> = None;
    let failed = |e| format!("cannot bind {} to {}: {e}", source.display(), target.display());
    mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(failed)
}

/// The mounts whose mount points must be there: not those on a tmpfs, whose content is in the image. Pure.
fn wanted<'a>(spec: &'a Spec, record: &Record) -> Vec<&'a Mount> {
    let all = spec.mounts().as_deref().unwrap_or(&[]);
    let below = |path: &Path, tmpfs: &Mount| path != tmpfs.destination() && path.starts_with(tmpfs.destination());
    let on_tmpfs = |path: &Path| all.iter().any(|m| m.typ().as_deref() == Some("tmpfs") && below(path, m));
    let cgroup =
        |m: &Mount| is_cgroup_v1(m, &record.cgroup) || m.typ().as_deref().is_some_and(|t| t.starts_with("cgroup"));
    all.iter().filter(|m| !cgroup(m) && !on_tmpfs(m.destination())).collect()
}

fn one(root: &Path, entry: &Mount) -> Step {
    let source = entry.source().clone().unwrap_or_default();
    let file = is_bind(entry) && !source.is_dir();
    let target = make(root, entry.destination(), file).map_err(|e| e.to_string())?;
    if is_bind(entry) {
        bind(&source, &PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd())))?;
    }
    Ok(())
}

/// The mount point, made if it is not there; it cannot be outside the root.
fn make(root: &Path, path: &Path, file: bool) -> Result<OwnedFd, pathrs::error::Error> {
    let root = Root::open(root)?;
    if let Ok(found) = root.resolve(path) {
        return Ok(found.into());
    }
    let dirs = Permissions::from_mode(0o755);
    if !file {
        root.mkdir_all(path, &dirs)?;
    } else {
        root.mkdir_all(path.parent().unwrap_or(Path::new("/")), &dirs)?;
        let flags = OpenFlags::O_CREAT | OpenFlags::O_EXCL | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
        root.create_file(path, flags, &Permissions::from_mode(0o644))?;
    }
    Ok(root.resolve(path)?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::Identity;

    #[test]
    fn what_lies_on_a_tmpfs_is_in_the_image() {
        let spec: Spec =
            serde_json::from_value(serde_json::json!({"ociVersion": "1.2.0", "root": {"path": "r"}, "mounts": [
            {"destination": "/dev", "type": "tmpfs"}, {"destination": "/dev/pts", "type": "devpts"},
            {"destination": "/data", "type": "bind", "source": "/x"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup"}]}))
            .unwrap();
        let record = Record::new("a", "/b".into(), "/b/r".into(), Identity { pid: 1, start_time: 1 });
        let paths: Vec<_> = wanted(&spec, &record).iter().map(|m| m.destination().display().to_string()).collect();
        assert_eq!(paths, ["/dev", "/data"]);
    }
}
