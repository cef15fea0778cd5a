//! `spec`: a configuration to begin with.

use serde_json::{Value, json};

/// Version of the runtime specification that is implemented.
pub const VERSION: &str = "1.3.0";
/// What [`default`] says: it needs nothing newer, and there are runtimes that refuse versions they do not know.
const WRITTEN: &str = "1.2.0";

/// The default configuration of a new bundle: a shell on a terminal, read-only root, few capabilities.
///
/// `rootless` maps the given user and group to root in a user namespace. A cgroup namespace is for machines on cgroup v2
/// alone, as in runc: on v1 the mount of the cgroups shows what the container may see.
#[must_use]
pub fn default(rootless: Option<(u32, u32)>, cgroup_v2: bool) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut spec = json!({
        "ociVersion": WRITTEN,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "pier",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    // As runc: with v1's hierarchies the container's cgroups are bound in, and a namespace would only hide their names.
    if cgroup_v2 && let Some(list) = spec["linux"]["namespaces"].as_array_mut() {
        list.push(json!({"type": "cgroup"}));
    }
    if let Some((uid, gid)) = rootless {
        make_rootless(&mut spec, uid, gid);
    }
    spec
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}

fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(list) = linux["namespaces"].as_array_mut() {
        list.retain(|ns| ns["type"] != "network");
        list.push(json!({"type": "user"}));
    }
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    for mount in mounts {
        if mount["destination"] == "/sys" {
            // A sysfs needs an own network namespace: the host's is bound.
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| o != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn defaults_are_accepted_by_ourselves() {
        for (rootless, cgroup_v2) in [(None, true), (Some((1000, 1000)), false)] {
            let mut spec = serde_json::from_value(default(rootless, cgroup_v2)).unwrap();
            crate::harden::harden(&mut spec).unwrap();
        }
    }
}
