//! Delegation: the cgroup of a container with a user namespace and a cgroup namespace of its own belongs to its user, who
//! may then run containers or a service manager in it (cgroup-v2.rst, "Delegation").

use std::fs;
use std::io;
use std::os::unix::fs::chown;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::Placement;
use crate::Result;
use crate::error::Context;
use crate::harden::{has_option, namespace};

/// The files a delegate may write, where the kernel does not list them itself (before 4.15).
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Placement {
    /// Hands the cgroup to the container's user, if the configuration is one of a delegate.
    ///
    /// # Errors
    /// [`crate::Error::Step`].
    pub fn delegate(&self, spec: &Spec) -> Result<()> {
        let (Some(dir), Some(uid)) = (self.dirs.first().filter(|_| self.unified), owner(spec)) else { return Ok(()) };
        let failed = || format!("cannot hand over cgroup {}", dir.path.display());
        chown(&dir.path, Some(uid), None).step(failed)?;
        let files = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| FILES.into());
        for file in files.lines() {
            match chown(dir.path.join(file), Some(uid), None) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).step(failed),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The host's id of the user that the container's process is, when cgroups are mounted writable in a user namespace and a
/// cgroup namespace of its own. Pure.
fn owner(spec: &Spec) -> Option<u32> {
    let writable = spec
        .mounts()
        .iter()
        .flatten()
        .any(|m| matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2")) && !has_option(m, &["ro"]));
    let own_cgroup_namespace = matches!(namespace(spec, LinuxNamespaceType::Cgroup), Some(None));
    if !writable || !own_cgroup_namespace || namespace(spec, LinuxNamespaceType::User).is_none() {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    let maps = spec.linux().as_ref()?.uid_mappings().as_ref()?;
    maps.iter().find_map(|m| {
        let offset = uid.checked_sub(m.container_id()).filter(|o| *o < m.size())?;
        m.host_id().checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(change: impl FnOnce(&mut serde_json::Value)) -> Option<u32> {
        let mut value = json!({
            "ociVersion": "1.2.0", "root": {"path": "r"},
            "process": {"cwd": "/", "args": ["a"], "user": {"uid": 5, "gid": 0}},
            "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}],
            "linux": {"namespaces": [{"type": "user"}, {"type": "cgroup"}],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 100}]}
        });
        change(&mut value);
        owner(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn only_a_delegate_owns() {
        assert_eq!(of(|_| ()), Some(100_004));
        assert_eq!(of(|v| v["process"]["user"]["uid"] = json!(0)), Some(1000));
        assert_eq!(of(|v| v["process"]["user"]["uid"] = json!(500)), None);
        assert_eq!(of(|v| v["mounts"][0]["options"] = json!(["ro"])), None);
        assert_eq!(of(|v| v["linux"]["namespaces"] = json!([{"type": "user"}])), None);
        assert_eq!(of(|v| v["linux"]["namespaces"] = json!([{"type": "cgroup"}])), None);
    }
}
