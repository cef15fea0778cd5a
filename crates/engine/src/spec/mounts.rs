//! The `mounts` list: the kernel's filesystems first, then what was asked for, parents before children.
use super::merge::clean;
use super::namespaces::Namespace;
use super::{Inputs, process};
use crate::error::Error;
use api::engine::v1::{ContainerConfig, MountKind, VolumeMount};
use api::types::v1::Mount;
use serde_json::{Value, json};

const SHM_BYTES: i64 = 64 << 20;
const FLAGS: [&str; 6] = ["exec", "noexec", "suid", "nosuid", "dev", "nodev"];
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// All mounts of the container.
pub fn mounts(inputs: &Inputs<'_>) -> Result<Value, Error> {
    let config = inputs.config;
    let shm = if config.shm_size_bytes == 0 { SHM_BYTES } else { config.shm_size_bytes };
    let shm = u64::try_from(shm).map_err(|_| Error::invalid("shm size", shm, "it is negative"))?;
    let mut own: Vec<Mount> = inputs.mounts.to_vec();
    own.extend(inputs.init.map(|path| bind(path, process::INIT_TARGET, &["bind", "ro"])));
    own.sort_by_key(|m| depth(&m.target));

    let mut list = kernel_mounts(inputs, shm);
    list.retain(|m| !own.iter().any(|o| covers(&o.target, m["destination"].as_str().unwrap_or_default())));
    list.extend(own.iter().map(entry));
    Ok(json!(list))
}

fn kernel_mounts(inputs: &Inputs<'_>, shm: u64) -> Vec<Value> {
    let privileged = inputs.config.security.as_ref().is_some_and(|s| s.privileged);
    let mut list = oci::runtime::default_mounts(shm).as_array().cloned().unwrap_or_default();
    if inputs.namespaces.ipc == Namespace::Host {
        list.retain(|m| m["destination"] != "/dev/shm" && m["destination"] != "/dev/mqueue");
        for path in ["/dev/shm", "/dev/mqueue"] {
            list.push(entry(&bind(path, path, &["rbind", "nosuid", "noexec", "nodev"])));
        }
    }
    if inputs.namespaces.user.is_some() {
        // A new sysfs takes root over the network namespace, and that was made by root of the machine.
        let host = entry(&bind("/sys", "/sys", &["rbind", "ro", "nosuid", "noexec", "nodev", "rprivate"]));
        list.iter_mut().filter(|m| m["type"] == "sysfs").for_each(|m| *m = host.clone());
    }
    if privileged {
        for mount in list.iter_mut().filter(|m| m["destination"].as_str().is_some_and(|d| d.starts_with("/sys"))) {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|o| o != "ro");
            }
        }
    }
    list
}

fn bind(source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        r#type: "bind".into(),
        source: source.into(),
        target: target.into(),
        options: options.iter().map(|o| o.to_string()).collect(),
    }
}

pub(super) fn entry(mount: &Mount) -> Value {
    let (maps, options): (Vec<&String>, Vec<&String>) =
        mount.options.iter().partition(|option| option.starts_with(IDMAP));
    let mut entry =
        json!({"destination": clean(&mount.target), "type": mount.r#type, "source": mount.source, "options": options});
    if let Some(map) = maps.first().and_then(|option| option.strip_prefix(IDMAP)) {
        entry["uidMappings"] = mappings(map, "u:");
        entry["gidMappings"] = mappings(map, "g:");
    }
    entry
}

/// mount(8)'s option for owners that look different: "u:DISK:SEEN:COUNT g:...".
const IDMAP: &str = "X-mount.idmap=";

/// The same in the words of the runtime specification, where the ids on disk are the container's.
fn mappings(map: &str, kind: &str) -> Value {
    let of = |word: &str| {
        let numbers: Vec<u32> = word.strip_prefix(kind)?.split(':').filter_map(|number| number.parse().ok()).collect();
        let [disk, seen, count] = numbers[..] else { return None };
        Some(json!({"containerID": disk, "hostID": seen, "size": count}))
    };
    map.split_whitespace().filter_map(of).collect()
}

// A mount on /dev takes the place of the kernel's /dev and of what would stand below it.
fn covers(target: &str, path: &str) -> bool {
    let target = clean(target);
    path.strip_prefix(&target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn depth(target: &str) -> usize {
    clean(target).matches('/').count()
}

/// Docker's rule: a shared or slave bind needs the rootfs to be at least that.
pub fn rootfs_propagation(mounts: &[Mount]) -> Option<&'static str> {
    let any = |names: [&str; 2]| mounts.iter().any(|m| m.options.iter().any(|o| names.contains(&o.as_str())));
    if any(["shared", "rshared"]) {
        Some("shared")
    } else if any(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}

/// A mount that says nothing of its kind is a bind when its source is a path.
pub fn kind(wanted: &VolumeMount) -> MountKind {
    match wanted.kind() {
        MountKind::Unspecified if wanted.source.starts_with('/') => MountKind::Bind,
        MountKind::Unspecified => MountKind::Volume,
        other => other,
    }
}

/// Whether the volume tool has to do with a mount: always but for memory and plain binds.
pub fn is_volume(wanted: &VolumeMount) -> bool {
    match kind(wanted) {
        MountKind::Tmpfs => false,
        MountKind::Bind => wanted.overlay || wanted.chown || !wanted.idmap.is_empty(),
        _ => true,
    }
}

/// A bind of a host path, as the runtime wants it. docker's rule: read-only is what is mounted below too, where the kernel
/// can do that (`below`).
pub fn host_bind(wanted: &VolumeMount, below: bool) -> Mount {
    let propagation = if wanted.propagation.is_empty() { "rprivate" } else { &wanted.propagation };
    let mut options = vec![if wanted.non_recursive { "bind" } else { "rbind" }, propagation];
    if wanted.read_only {
        let below = wanted.recursive_read_only || (below && !wanted.writable_below && !wanted.non_recursive);
        // Both: a runtime that does not know the longer word takes the other.
        options.extend(["ro", "rro"].into_iter().take(if below { 2 } else { 1 }));
    }
    options.extend(wanted.flags.iter().map(String::as_str));
    bind(&wanted.source, &wanted.target, &options)
}

/// Refuses options that are none, or do not go together.
pub fn check_options(wanted: &VolumeMount) -> Result<(), Error> {
    let wrong = |field, why| Err(Error::invalid(field, &wanted.target, why));
    if !wanted.propagation.is_empty() && !PROPAGATIONS.contains(&wanted.propagation.as_str()) {
        return Err(Error::invalid("bind propagation", &wanted.propagation, "no such mode"));
    }
    if let Some(unknown) = wanted.flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        return Err(Error::invalid("mount flag", unknown, "no such flag"));
    }
    if (wanted.recursive_read_only || wanted.writable_below) && !wanted.read_only {
        return wrong("recursive read-only", "it goes with read-only");
    }
    if wanted.recursive_read_only && (wanted.writable_below || wanted.non_recursive) {
        return wrong("recursive read-only", "what is mounted below cannot be read-only and not be so");
    }
    let plain = kind(wanted) == MountKind::Bind && !is_volume(wanted);
    if (wanted.writable_below || wanted.non_recursive) && !plain {
        return wrong("bind-recursive", "it is for binds, without overlay and other owners");
    }
    Ok(())
}

/// A tmpfs with docker's default options.
pub fn tmpfs(wanted: &VolumeMount) -> Mount {
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(String::from).to_vec();
    if wanted.read_only {
        options.push("ro".into());
    }
    let flags = wanted.flags.iter().map(String::as_str);
    for option in wanted.tmpfs_options.split(',').chain(flags).map(str::trim).filter(|o| !o.is_empty()) {
        let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), String::from);
        options.retain(|o| *o != opposite && o != option);
        options.push(option.to_string());
    }
    Mount { r#type: "tmpfs".into(), source: "tmpfs".into(), target: wanted.target.clone(), options }
}

/// Refuses targets that are relative, the root itself, or named twice.
pub fn check_targets(config: &ContainerConfig) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    for mount in &config.mounts {
        let target = mount.target.as_str();
        if !target.starts_with('/') || target.contains('\0') {
            return Err(Error::invalid("mount target", target, "it must be an absolute path"));
        }
        if target.split('/').any(|part| part == "..") {
            return Err(Error::invalid("mount target", target, "no .. may stand in it"));
        }
        if clean(target) == "/" {
            return Err(Error::invalid("mount target", target, "it is the root of the container"));
        }
        if !seen.insert(clean(target)) {
            return Err(Error::invalid("mount target", target, "two mounts have it"));
        }
    }
    Ok(())
}
