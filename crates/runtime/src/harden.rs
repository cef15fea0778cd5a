//! From a configuration to one that is safe to run. Pure: nothing is touched, nothing is read.

use std::path::{Component, Path, PathBuf};

use libcontainer::validator::Validator;
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Mount, Spec};

use crate::{Error, Result, memory_policy, net_device};

/// Paths below `/proc` that may be covered by a mount (lxcfs does so); anything else there could redirect writes that the
/// runtime makes on the container's behalf.
const PROC_MOUNTS: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/fs/binfmt_misc",
];

/// Checks a configuration and makes it explicit where the specification leaves room.
///
/// # Errors
/// [`Error::Refused`] naming the field.
pub fn harden(spec: &mut Spec) -> Result<()> {
    let refuse = |why: &str| Err(Error::Refused(why.to_owned()));
    let Some(process) = spec.process() else { return refuse("process is required") };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return refuse("process.args is required");
    }
    if !process.cwd().is_absolute() {
        return refuse("process.cwd must be an absolute path");
    }
    let Some(linux) = spec.linux() else { return refuse("linux is required") };
    if let Some(policy) = linux.memory_policy() {
        memory_policy::plan(policy)?;
    }
    net_device::check(spec)?;
    duplicate_namespaces(spec)?;
    if namespace(spec, LinuxNamespaceType::Mount).is_none() {
        own_mounts(spec)?;
    }
    Validator::validate_spec(spec).map_err(|e| Error::Refused(e.to_string()))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let user_namespace = namespace(spec, LinuxNamespaceType::User).is_some();
    for mount in &mut mounts {
        check_mount(mount, user_namespace)?;
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Without a mount namespace of its own a container's mounts, and the change of propagation before them, would be the
/// host's. It gets one all the same: from inside there is no difference but that nothing is left behind.
fn own_mounts(spec: &mut Spec) -> Result<()> {
    let mount = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Mount).build();
    let mount = mount.map_err(|e| Error::Refused(e.to_string()))?;
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut all = linux.namespaces().clone().unwrap_or_default();
    all.push(mount);
    linux.set_namespaces(Some(all));
    spec.set_linux(Some(linux));
    Ok(())
}

/// Makes the paths of mounts say what they mean: sources of bind mounts are relative to the bundle, and a destination may be
/// written as the host sees it.
pub(crate) fn settle_paths(spec: &mut Spec, bundle: &Path, rootfs: &Path) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &mut mounts {
        if is_bind(mount)
            && let Some(source) = mount.source()
        {
            mount.set_source(Some(bundle.join(source)));
        }
        if let Ok(inside) = mount.destination().strip_prefix(rootfs) {
            mount.set_destination(Path::new("/").join(inside));
        }
    }
    spec.set_mounts(Some(mounts));
}

/// `None`: not in the list. `Some(None)`: a new one. `Some(path)`: an existing one.
pub(crate) fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> Option<Option<PathBuf>> {
    let all = spec.linux().as_ref()?.namespaces().as_ref()?;
    let found = all.iter().find(|ns| ns.typ() == kind)?;
    Some(found.path().clone().filter(|p| !p.as_os_str().is_empty()))
}

fn duplicate_namespaces(spec: &Spec) -> Result<()> {
    let all = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
    for (i, ns) in all.iter().enumerate() {
        if all[..i].iter().any(|other| other.typ() == ns.typ()) {
            return Err(Error::Refused(format!("namespace {:?} is listed twice", ns.typ())));
        }
    }
    Ok(())
}

fn check_mount(mount: &mut Mount, user_namespace: bool) -> Result<()> {
    let destination = normal(mount.destination());
    if destination == Path::new("/") {
        return Err(Error::Refused("a mount over the root directory".into()));
    }
    let kind = mount.typ().as_deref().unwrap_or_default().to_owned();
    let inside_proc = destination.starts_with("/proc") && destination != Path::new("/proc");
    if inside_proc && !may_cover_proc(&destination) {
        return Err(Error::Refused(format!("a mount inside /proc: {}", destination.display())));
    }
    if destination == Path::new("/proc") && kind != "proc" && !is_bind(mount) {
        return Err(Error::Refused(format!("a {kind} filesystem over /proc")));
    }
    let usual = if kind == "sysfs" { "/sys" } else { "/proc" };
    if matches!(kind.as_str(), "proc" | "sysfs") && !is_bind(mount) && destination != Path::new(usual) {
        return Err(Error::Refused(format!("a {kind} filesystem elsewhere than {usual}: {}", destination.display())));
    }
    check_idmap(mount, user_namespace)?;
    if mount.source().is_none() {
        mount.set_source(Some(PathBuf::from(if kind.is_empty() { "none" } else { &kind })));
    }
    mount.set_destination(destination);
    Ok(())
}

/// Ids are mapped on bind mounts only, for users and groups, by mappings of their own or the container's.
fn check_idmap(mount: &Mount, user_namespace: bool) -> Result<()> {
    let refuse = |why: &str| Err(Error::Refused(format!("mount {}: {why}", mount.destination().display())));
    let given = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|m| !m.is_empty());
    let (uids, gids) = (given(mount.uid_mappings()), given(mount.gid_mappings()));
    if !uids && !gids && !has_option(mount, &["idmap", "ridmap"]) {
        return Ok(());
    }
    if !is_bind(mount) {
        return refuse("only bind mounts can be idmapped");
    }
    if uids != gids {
        return refuse("uidMappings and gidMappings belong together");
    }
    if !uids && !user_namespace {
        return refuse("idmap without mappings needs a user namespace");
    }
    Ok(())
}

/// Whether a mount may cover this path below `/proc`.
pub(crate) fn may_cover_proc(path: &Path) -> bool {
    PROC_MOUNTS.iter().any(|allowed| path.starts_with(allowed))
}

/// Whether a mount is a bind mount.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind") || has_option(mount, &["bind", "rbind"])
}

/// Whether a mount has one of the options.
pub(crate) fn has_option(mount: &Mount, names: &[&str]) -> bool {
    mount.options().iter().flatten().any(|o| names.contains(&o.as_str()))
}

/// Lexical normalisation below `/`: `..` cannot leave it. The real resolution happens inside the rootfs, in the kernel.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]
        })
    }

    fn run(value: Value) -> Result<Spec> {
        let mut spec: Spec = serde_json::from_value(value).unwrap();
        harden(&mut spec).map(|()| spec)
    }

    #[test]
    fn a_plain_one_passes() {
        assert!(run(base()).is_ok());
    }

    /// What the message must say, and the change that causes it.
    type Case = (&'static str, fn(&mut Value));

    #[test]
    fn what_is_refused() {
        let cases: [Case; 6] = [
            ("listed twice", |v| {
                v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}])
            }),
            ("process.args", |v| v["process"]["args"] = json!([])),
            ("process.cwd", |v| v["process"]["cwd"] = json!("x")),
            ("inside /proc", |v| {
                v["mounts"][0] = json!({"destination": "/proc/self/attr", "type": "bind", "source": "/x"})
            }),
            ("inside /proc", |v| {
                v["mounts"][0] = json!({"destination": "/a/../proc//sys", "type": "tmpfs", "source": "t"})
            }),
            ("root directory", |v| v["mounts"][0]["destination"] = json!("/..")),
        ];
        for (what, change) in cases {
            let mut value = base();
            change(&mut value);
            let error = run(value).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn mounts_are_never_the_hosts() {
        let mut value = base();
        value["linux"]["namespaces"] = json!([{"type": "pid"}]);
        assert_eq!(namespace(&run(value).unwrap(), LinuxNamespaceType::Mount), Some(None));
    }

    #[test]
    fn lxcfs_files_may_be_mounted() {
        let mut value = base();
        value["mounts"][0] = json!({"destination": "/proc/meminfo", "type": "bind", "source": "/x"});
        assert!(run(value).is_ok());
    }

    #[test]
    fn destinations_are_normal_and_sources_present() {
        let mut value = base();
        value["mounts"][0] = json!({"destination": "tmp/./x/../y", "type": "tmpfs"});
        let spec = run(value).unwrap();
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(mounts[0].destination(), Path::new("/tmp/y"));
        assert_eq!(mounts[0].source().as_deref(), Some(Path::new("tmpfs")));
    }
}
