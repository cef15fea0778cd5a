//! Mounts of a container that come from outside it, and that CRIU must be told of by name.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use pathrs::Root;

use super::message::ExternalMount;
use crate::cgroup::Placement;
use crate::harden::is_bind;
use crate::rootfs::hierarchy_name;
use crate::state::Record;

/// A mount point inside the container, and what lies there on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outside {
    pub inside: PathBuf,
    pub source: PathBuf,
}

/// Bind mounts, cgroups (v1) and device nodes of a container. `locate` resolves symlinks on the way to a mount point.
/// Pure but for that.
pub(crate) fn outside(spec: &Spec, record: &Record, locate: &dyn Fn(&Path) -> PathBuf) -> Vec<Outside> {
    let (mut found, cgroup) = (vec![], &record.cgroup);
    for mount in spec.mounts().iter().flatten() {
        if is_bind(mount) {
            let source = mount.source().clone().unwrap_or_default();
            found.push(Outside { inside: locate(mount.destination()), source });
        } else if is_cgroup_v1(mount, cgroup) {
            let base = locate(mount.destination());
            found.extend(
                cgroup
                    .dirs
                    .iter()
                    .map(|dir| Outside { inside: base.join(hierarchy_name(dir)), source: dir.path.clone() }),
            );
        }
    }
    // Nodes are bound from the host where they cannot be made: then, and only then, CRIU meets these names.
    let defaults = libcontainer::rootfs::utils::default_devices();
    let configured = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or(&[]);
    found.extend(
        defaults
            .iter()
            .chain(configured)
            .map(|device| Outside { inside: device.path().clone(), source: device.path().clone() }),
    );
    let mut seen = std::collections::HashSet::new();
    found.retain(|one| seen.insert(one.inside.clone()));
    found
}

/// Whether it is the mount of v1 hierarchies, which is made of bind mounts here.
pub(crate) fn is_cgroup_v1(mount: &Mount, cgroup: &Placement) -> bool {
    mount.typ().as_deref() == Some("cgroup") && !cgroup.unified
}

/// For a dump: each mount point is called by its own path.
pub(crate) fn named(outside: &[Outside]) -> Vec<ExternalMount> {
    outside.iter().map(|one| external(&one.inside, &one.inside)).collect()
}

/// For a restore: what lies behind each name now.
pub(crate) fn sources(outside: &[Outside]) -> Vec<ExternalMount> {
    outside.iter().map(|one| external(&one.inside, &one.source)).collect()
}

/// One external mount.
pub(crate) fn external(key: &Path, value: &Path) -> ExternalMount {
    ExternalMount { key: key.to_string_lossy().into_owned(), value: value.to_string_lossy().into_owned() }
}

/// The path of a mount point as the kernel names it: symlinks inside `root` followed, and none out of it. What is not
/// there (because it lies in another mount) is taken as it is written.
pub(crate) fn locate(root: &Path, path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((resolved(root, above)?, path.strip_prefix(above).ok()?)));
    match found {
        Some((above, rest)) if rest.as_os_str().is_empty() => above,
        Some((above, rest)) => above.join(rest),
        None => path.to_owned(),
    }
}

fn resolved(root: &Path, path: &Path) -> Option<PathBuf> {
    let fd = OwnedFd::from(Root::open(root).and_then(|root| root.resolve(path)).ok()?);
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    Some(Path::new("/").join(name.strip_prefix(root).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::Dir;
    use crate::process::Identity;

    #[test]
    fn binds_cgroups_and_devices() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "r"}, "linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/data", "source": "/vol", "options": ["rbind"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]
        }))
        .unwrap();
        let record = |unified| {
            let mut record = Record::new("a", "/b".into(), "/b/r".into(), Identity { pid: 1, start_time: 1 });
            record.cgroup.unified = unified;
            record.cgroup.dirs =
                vec![Dir { controllers: vec!["cpu".into(), "cpuacct".into()], path: "/c/cpu/x".into() }];
            record
        };
        let v1 = outside(&spec, &record(false), &|p| p.to_owned());
        assert_eq!(v1[0], Outside { inside: "/data".into(), source: "/vol".into() });
        assert_eq!(v1[1], Outside { inside: "/sys/fs/cgroup/cpu,cpuacct".into(), source: "/c/cpu/x".into() });
        assert!(v1.iter().any(|o| o.inside == Path::new("/dev/fuse")));
        assert_eq!(named(&v1)[1].value, "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(sources(&v1)[1].value, "/c/cpu/x");
        let v2 = outside(&spec, &record(true), &|p| p.to_owned());
        assert!(!v2.iter().any(|o| o.inside.starts_with("/sys")));
    }

    #[test]
    fn mount_points_are_located_inside() {
        let root = std::env::temp_dir().join(format!("pier-locate-{}", std::process::id()));
        std::fs::create_dir_all(root.join("real/conf")).unwrap();
        let _ = std::os::unix::fs::symlink("/real/conf", root.join("conf"));
        let root = root.canonicalize().unwrap();
        assert_eq!(locate(&root, Path::new("/conf")), Path::new("/real/conf"));
        assert_eq!(locate(&root, Path::new("/none/there")), Path::new("/none/there"));
        assert_eq!(locate(&root, Path::new("/conf/not/there")), Path::new("/real/conf/not/there"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
