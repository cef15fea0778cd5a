//! The OCI bundle of a RUN step: docker's default container with the builder's differences. Pure: what it needs of
//! the root filesystem was read before.

use bollard_buildkit_proto::pb;
use oci::user::User;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A bind mount into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) source: PathBuf,
    pub(super) destination: String,
    pub(super) readonly: bool,
}

/// A memory mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tmpfs {
    pub(super) destination: String,
    /// Bytes, 0 for the kernel's default.
    pub(super) size: i64,
}

/// What a bundle is made of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Name of the container.
    pub(super) id: &'a str,
    pub(super) meta: &'a pb::Meta,
    pub(super) user: &'a User,
    /// Absolute.
    pub(super) rootfs: PathBuf,
    pub(super) host_network: bool,
    pub(super) binds: Vec<Bind>,
    pub(super) tmpfs: Vec<Tmpfs>,
    /// Bytes.
    pub(super) memory_limit: Option<u64>,
}

impl Plan<'_> {
    /// Where the container has mounts.
    pub(super) fn destinations(&self) -> Vec<String> {
        let own = self.binds.iter().map(|bind| bind.destination.clone());
        let default = oci::runtime::default_mounts(0);
        let default = default.as_array().into_iter().flatten().filter_map(|mount| mount["destination"].as_str());
        let default: Vec<String> = default
            .filter(|path| !path.starts_with("/dev/") && !path.starts_with("/sys/"))
            .map(str::to_owned)
            .collect();
        default.into_iter().chain(own).chain(self.tmpfs.iter().map(|mount| mount.destination.clone())).collect()
    }

    /// config.json.
    pub(super) fn spec(&self) -> serde_json::Result<Value> {
        let mut spec = serde_json::to_value(oci::runtime::default_spec(&self.meta.args)?)?;
        spec["root"] = json!({"path": self.rootfs, "readonly": false});
        spec["hostname"] = json!(if self.meta.hostname.is_empty() { "buildkitsandbox" } else { &self.meta.hostname });
        let process = &mut spec["process"];
        process["terminal"] = json!(false);
        process["cwd"] = json!(if self.meta.cwd.is_empty() { "/" } else { &self.meta.cwd });
        process["env"] = json!(self.env());
        process["noNewPrivileges"] = json!(false);
        process["user"] = json!({
            "uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.additional_gids,
        });
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.extend(self.mounts());
        }
        let linux = &mut spec["linux"];
        linux["cgroupsPath"] = json!(format!("/pier-{}", self.id));
        if let Some(limit) = self.memory_limit {
            linux["resources"]["memory"] = json!({"limit": limit});
        }
        if self.host_network
            && let Some(namespaces) = linux["namespaces"].as_array_mut()
        {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        Ok(spec)
    }

    fn env(&self) -> Vec<String> {
        let mut env = self.meta.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", self.user.home));
        }
        env
    }

    fn mounts(&self) -> Vec<Value> {
        let bind = |bind: &Bind| {
            let access = if bind.readonly { "ro" } else { "rw" };
            json!({"destination": bind.destination, "type": "bind", "source": bind.source, "options": ["rbind", access]})
        };
        let tmpfs = |mount: &Tmpfs| {
            let mut options = vec!["nosuid".to_owned(), "nodev".into(), "mode=1777".into()];
            if mount.size > 0 {
                options.push(format!("size={}", mount.size));
            }
            json!({"destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options})
        };
        self.binds.iter().map(bind).chain(self.tmpfs.iter().map(tmpfs)).collect()
    }
}

/// /etc/hosts of a RUN step: the host's, or only loopback, and what was asked for.
pub(super) fn hosts(host: Option<&str>, hostname: &str, extra: &[pb::HostIp]) -> String {
    let mut text = host.map_or_else(
        || format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        str::to_owned,
    );
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in extra {
        text.push_str(&format!("{}\t{}\n", entry.ip, entry.host));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn describes_the_container() {
        let meta = pb::Meta {
            args: vec!["sh".into(), "-c".into(), "true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/w".into(),
            ..Default::default()
        };
        let user = User { uid: 5, gid: 6, additional_gids: vec![7], home: "/home/x".into() };
        let mut plan = Plan {
            id: "build-1",
            meta: &meta,
            user: &user,
            rootfs: "/r".into(),
            host_network: true,
            binds: vec![Bind { source: "/h".into(), destination: "/etc/hosts".into(), readonly: true }],
            tmpfs: vec![Tmpfs { destination: "/t".into(), size: 4096 }],
            memory_limit: Some(1 << 20),
        };
        let spec = plan.spec().unwrap();
        assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOME=/home/x"]));
        assert_eq!(spec["process"]["user"], json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
        assert_eq!(spec["linux"]["cgroupsPath"], "/pier-build-1");
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 1 << 20);
        let has_network = |spec: &Value| {
            spec["linux"]["namespaces"].as_array().unwrap().iter().any(|namespace| namespace["type"] == "network")
        };
        assert!(!has_network(&spec));
        plan.host_network = false;
        assert!(has_network(&plan.spec().unwrap()));
        assert_eq!(plan.destinations(), ["/proc", "/dev", "/sys", "/etc/hosts", "/t"]);
        // It is a specification that the types know.
        serde_json::from_value::<oci_spec::runtime::Spec>(spec).unwrap();
    }

    #[test]
    fn writes_hosts() {
        let extra = [pb::HostIp { host: "db".into(), ip: "10.0.0.2".into() }];
        assert_eq!(hosts(Some("127.0.0.1 here"), "h", &extra), "127.0.0.1 here\n10.0.0.2\tdb\n");
        assert!(hosts(None, "h", &[]).starts_with("127.0.0.1\tlocalhost h\n"));
    }
}
