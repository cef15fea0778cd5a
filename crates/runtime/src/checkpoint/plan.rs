//! From options and facts to the request that CRIU gets for a dump. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::Options;
use crate::criu;
use crate::criu::message::{Opts, PageServer};
use crate::criu::mounts::{self, Outside};

/// What is known of the container.
pub(super) struct Facts {
    pub pid: i32,
    pub rootfs: PathBuf,
    /// Its freezer cgroup (v1) or cgroup (v2): without one CRIU stops processes by ptrace.
    pub freezer: Option<PathBuf>,
    pub outside: Vec<Outside>,
    pub masked_files: Vec<PathBuf>,
    /// Namespaces joined by path that stay where they are, with their inode numbers.
    pub external: Vec<(LinuxNamespaceType, u64)>,
}

/// The request's options, but for the directories.
pub(super) fn opts(options: &Options, config: &Spec, facts: &Facts) -> Opts {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let annotation = config.annotations().as_ref().and_then(|a| a.get("org.criu.config")).map(String::as_str);
    let mut opts = Opts {
        pid: Some(facts.pid),
        root: Some(text(&facts.rootfs)),
        leave_running: Some(options.leave_running),
        tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
        link_remap: Some(options.link_remap),
        freeze_cgroup: facts.freezer.as_deref().map(text),
        config_file: criu::config_file(annotation),
        external: facts.external.iter().map(|(kind, inode)| external_namespace(*kind, *inode)).collect(),
        parent_img: options.parent_path.as_deref().map(text),
        track_mem: options.parent_path.is_some().then_some(true),
        page_server: options
            .page_server
            .as_ref()
            .map(|(address, port)| PageServer { address: Some(address.clone()), port: Some(i32::from(*port)) }),
        ..Opts::default()
    };
    options.policy.fill(&mut opts);
    if !options.pre_dump {
        opts.external_mounts = mounts::named(&facts.outside);
        let null = Path::new("/dev/null");
        opts.external_mounts.extend(facts.masked_files.iter().map(|path| mounts::external(path, null)));
    }
    opts
}

/// `net[4026531840]:extRootNetNS`, as CRIU's `--external`.
fn external_namespace(kind: LinuxNamespaceType, inode: u64) -> String {
    format!("{}[{inode}]:{}", criu::namespace_name(kind), criu::namespace_key(kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::criu::message::ExternalMount;
    use crate::criu::{CgroupsMode, Policy};

    fn facts() -> Facts {
        Facts {
            pid: 42,
            rootfs: "/r".into(),
            freezer: Some("/c/freezer/x".into()),
            outside: vec![Outside { inside: "/data".into(), source: "/vol".into() }],
            masked_files: vec!["/proc/kcore".into()],
            external: vec![(LinuxNamespaceType::Network, 7)],
        }
    }

    fn config() -> Spec {
        serde_json::from_value(serde_json::json!({"ociVersion": "1.2.0", "root": {"path": "r"},
            "annotations": {"org.criu.config": "/etc/mine.conf"}}))
        .unwrap()
    }

    #[test]
    fn a_dump() {
        let options = Options {
            policy: Policy { tcp_established: true, cgroups: CgroupsMode::Ignore, ..Policy::default() },
            page_server: Some(("h".into(), 9)),
            ..Options::default()
        };
        let got = opts(&options, &config(), &facts());
        assert_eq!((got.pid, got.tcp_established, got.manage_cgroups_mode), (Some(42), Some(true), Some(0)));
        assert_eq!(got.external, ["net[7]:extRootNetNS"]);
        assert_eq!(got.config_file.as_deref(), Some("/etc/mine.conf"));
        assert_eq!(got.freeze_cgroup.as_deref(), Some("/c/freezer/x"));
        assert_eq!(got.page_server.unwrap().port, Some(9));
        let mount = |key: &str, value: &str| ExternalMount { key: key.into(), value: value.into() };
        assert_eq!(got.external_mounts, [mount("/data", "/data"), mount("/proc/kcore", "/dev/null")]);
        assert_eq!(got.track_mem, None);
    }

    #[test]
    fn a_pre_dump_is_memory_only() {
        let options = Options { pre_dump: true, parent_path: Some("../one".into()), ..Options::default() };
        let got = opts(&options, &config(), &facts());
        assert!(got.external_mounts.is_empty());
        assert_eq!((got.parent_img.as_deref(), got.track_mem), (Some("../one"), Some(true)));
    }
}
