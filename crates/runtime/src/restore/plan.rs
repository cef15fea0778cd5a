//! From options and facts to the request that CRIU gets for a restore. Pure.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::Options;
use crate::criu;
use crate::criu::message::{CgroupRoot, InheritFd, JoinNamespace, Opts};
use crate::criu::mounts::{self, Outside};
use crate::{Error, Result};

/// What is known of the container to be.
pub(super) struct Facts<'a> {
    /// The rootfs as a mount point of its own.
    pub root: &'a Path,
    pub outside: Vec<Outside>,
    /// Descriptors of external namespaces, which CRIU inherits.
    pub namespaces: Vec<(LinuxNamespaceType, i32)>,
    /// What the first descriptors were at the time of the checkpoint.
    pub descriptors: Vec<String>,
}

/// The request's options, but for the directories and cgroups.
pub(super) fn opts(options: &Options, config: &Spec, facts: &Facts<'_>) -> Result<Opts> {
    let annotation = config.annotations().as_ref().and_then(|a| a.get("org.criu.config")).map(String::as_str);
    let mut opts = Opts {
        root: Some(facts.root.to_string_lossy().into_owned()),
        rst_sibling: Some(true),
        evasive_devices: Some(true),
        config_file: criu::config_file(annotation),
        lsm_profile: options.lsm_profile.clone(),
        lsm_mount_context: options.lsm_mount_context.clone(),
        external_mounts: mounts::sources(&facts.outside),
        join_namespaces: joined(config)?,
        ..Opts::default()
    };
    options.policy.fill(&mut opts);
    if config.linux().as_ref().and_then(|l| l.masked_paths().as_ref()).is_some_and(|m| !m.is_empty()) {
        let null = Path::new("/dev/null");
        opts.external_mounts.push(mounts::external(null, null));
    }
    let inherit = |key: &str, fd: i32| InheritFd { key: key.to_owned(), fd };
    opts.inherit_fds = facts.namespaces.iter().map(|(kind, fd)| inherit(criu::namespace_key(*kind), *fd)).collect();
    let ours = facts.descriptors.iter().take(3 + options.preserve_fds as usize);
    let pipes = ours.enumerate().filter(|(_, name)| name.contains("pipe:"));
    opts.inherit_fds.extend(pipes.map(|(n, name)| inherit(name, n as i32)));
    Ok(opts)
}

/// Namespaces of the configuration that are joined by path, but for those that CRIU inherits.
fn joined(config: &Spec) -> Result<Vec<JoinNamespace>> {
    let list = config.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or(&[]);
    let mut joined = vec![];
    for namespace in list {
        let kind = namespace.typ();
        let Some(path) = namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty()) else { continue };
        match kind {
            LinuxNamespaceType::Network | LinuxNamespaceType::Pid => {}
            LinuxNamespaceType::Cgroup => {
                return Err(Error::Argument("CRIU cannot join an existing cgroup namespace".into()));
            }
            _ => joined.push(JoinNamespace {
                kind: criu::namespace_name(kind).to_owned(),
                file: path.to_string_lossy().into_owned(),
            }),
        }
    }
    Ok(joined)
}

/// The cgroups that take the place of the dumped ones, from the text of CRIU's own `/proc/PID/cgroup`.
pub(super) fn cgroup_roots(text: &str) -> Vec<CgroupRoot> {
    let root = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some(CgroupRoot { controllers: Some(parts.next()?.to_owned()), path: parts.next()?.to_owned() })
    };
    text.lines().filter_map(root).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn config(namespaces: serde_json::Value) -> Spec {
        serde_json::from_value(json!({"ociVersion": "1.2.0", "root": {"path": "r"},
            "linux": {"namespaces": namespaces, "maskedPaths": ["/proc/kcore"]}}))
        .unwrap()
    }

    #[test]
    fn pipes_and_namespaces_are_inherited() {
        let facts = Facts {
            root: Path::new("/criu-root"),
            outside: vec![Outside { inside: "/data".into(), source: "/vol".into() }],
            namespaces: vec![(LinuxNamespaceType::Network, 9)],
            descriptors: ["/dev/null", "pipe:[1]", "pipe:[2]", "pipe:[3]"].map(str::to_owned).to_vec(),
        };
        let config = config(json!([{"type": "network", "path": "/n"}, {"type": "ipc", "path": "/i"}, {"type": "pid"}]));
        let got = opts(&Options::default(), &config, &facts).unwrap();
        let inherit = |key: &str, fd| InheritFd { key: key.into(), fd };
        assert_eq!(got.inherit_fds, [inherit("extRootNetNS", 9), inherit("pipe:[1]", 1), inherit("pipe:[2]", 2)]);
        assert_eq!(got.join_namespaces, [JoinNamespace { kind: "ipc".into(), file: "/i".into() }]);
        let values: Vec<&str> = got.external_mounts.iter().map(|m| m.value.as_str()).collect();
        assert_eq!(values, ["/vol", "/dev/null"]);
        let more = opts(&Options { preserve_fds: 1, ..Options::default() }, &config, &facts).unwrap();
        assert_eq!(more.inherit_fds.len(), 4);
    }

    #[test]
    fn a_joined_cgroup_namespace_is_refused() {
        let config = config(json!([{"type": "cgroup", "path": "/c"}]));
        assert!(joined(&config).unwrap_err().to_string().contains("cgroup namespace"));
    }

    #[test]
    fn roots_of_cgroups() {
        let got = cgroup_roots("3:cpu,cpuacct:/x\n1:name=systemd:/y:z\n0::/u\n");
        let of = |c: &str, p: &str| CgroupRoot { controllers: Some(c.into()), path: p.into() };
        assert_eq!(got, [of("cpu,cpuacct", "/x"), of("name=systemd", "/y:z"), of("", "/u")]);
    }
}
