#![allow(clippy::unwrap_used)]
use super::namespaces::{Namespace, Namespaces};
use super::*;
use api::engine::v1::{Entrypoint, MountKind, Resources, Security, VolumeMount};
use oci::ImageConfig;
use serde_json::Value;

fn machine() -> Machine {
    let capabilities = security::KNOWN.iter().map(|c| c.to_string()).filter(|c| c != "CAP_SYS_RESOURCE").collect();
    Machine { architecture: "amd64".into(), capabilities, cgroup_v2: false, swap_limit: true, cpus: 2 }
}

fn image(json: &str) -> ImageConfig {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{json},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn busybox() -> ImageConfig {
    image(
        r#"{"Cmd":["sh"],"Env":["A=1","PATH=/bin"],"Labels":{"a":"image","b":"image"},"Volumes":{"/data":{},"/var/":{}},"ExposedPorts":{"80/tcp":{}}}"#,
    )
}

fn with(change: impl FnOnce(&mut ContainerConfig)) -> ContainerConfig {
    let mut config = ContainerConfig { image: "busybox".into(), ..Default::default() };
    change(&mut config);
    config
}

fn composed_with(config: &ContainerConfig, mounts: &[Mount], namespaces: &Namespaces) -> Result<Value, Error> {
    let merged = merge::merge(config, &busybox())?;
    let machine = machine();
    let id = "0123456789abcdef".repeat(4);
    let inputs =
        Inputs { id: &id, config, merged: &merged, machine: &machine, mounts, devices: &[], namespaces, init: None };
    compose(&inputs).map(|text| serde_json::from_slice(&text).unwrap())
}

fn composed(config: &ContainerConfig) -> Result<Value, Error> {
    composed_with(config, &[], &Namespaces::default())
}

fn resources(change: impl FnOnce(&mut Resources)) -> ContainerConfig {
    let mut resources = Resources::default();
    change(&mut resources);
    with(|c| c.resources = Some(resources))
}

fn secured(change: impl FnOnce(&mut Security)) -> ContainerConfig {
    let mut security = Security::default();
    change(&mut security);
    with(|c| c.security = Some(security))
}

fn mount(target: &str) -> Mount {
    Mount { r#type: "bind".into(), source: "/src".into(), target: target.into(), options: vec!["rbind".into()] }
}

#[test]
fn a_default_container() {
    let spec = composed(&with(|_| {})).unwrap();
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOSTNAME=0123456789ab", "A=1"]));
    assert_eq!(spec["process"]["cwd"], "/");
    assert_eq!(spec["hostname"], "0123456789ab");
    assert_eq!(spec["linux"]["cgroupsPath"], format!("/pier-{}", "0123456789abcdef".repeat(4)));
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert!(spec["process"]["capabilities"].get("inheritable").is_none());
    assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    let kinds: Vec<_> = spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].clone()).collect();
    assert_eq!(json!(kinds), json!(["mount", "pid", "ipc", "uts", "network", "cgroup"]));
    assert_eq!(spec["process"]["noNewPrivileges"], false);
}

#[test]
fn entrypoint_and_command_by_dockers_rules() {
    let image = image(r#"{"Entrypoint":["/entry"],"Cmd":["a","b"]}"#);
    let args = |entrypoint: Option<&[&str]>, cmd: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let config = with(|c| {
            c.entrypoint = entrypoint.map(|e| Entrypoint { args: own(e) });
            c.cmd = own(cmd);
        });
        merge::merge(&config, &image).map(|m| m.args.join(" "))
    };
    assert_eq!(args(None, &[]).unwrap(), "/entry a b");
    assert_eq!(args(None, &["x"]).unwrap(), "/entry x");
    assert_eq!(args(Some(&["/own"]), &[]).unwrap(), "/own");
    assert_eq!(args(Some(&["/own"]), &["x"]).unwrap(), "/own x");
    assert_eq!(args(Some(&[]), &["x"]).unwrap(), "x");
    assert!(matches!(args(Some(&[]), &[]), Err(Error::NoCommand { .. })));
}

#[test]
fn environment_labels_volumes_and_ports_are_merged() {
    let config = with(|c| {
        c.env = ["A=2", "B=x=y", "PATH"].map(String::from).to_vec();
        c.tty = true;
        c.labels = [("b".to_string(), "own".to_string())].into();
        c.mounts = vec![VolumeMount { target: "/data/".into(), ..Default::default() }];
        c.network = Some(api::engine::v1::NetworkConfig { expose: vec!["53/udp".into()], ..Default::default() });
    });
    let merged = merge::merge(&config, &busybox()).unwrap();
    assert_eq!(merged.env, ["TERM=xterm", "A=2", "B=x=y"]);
    assert_eq!((merged.labels["a"].as_str(), merged.labels["b"].as_str()), ("image", "own"));
    assert_eq!(merged.anonymous_volumes, ["/var"]);
    assert_eq!(merged.exposed_ports.iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert!(merge::merge(&with(|c| c.env = vec!["=x".into()]), &busybox()).is_err());
    assert!(merge::merge(&with(|c| c.working_dir = "rel".into()), &busybox()).is_err());
}

#[test]
fn healthchecks_inherit_field_by_field() {
    let image = image(r#"{"Cmd":["sh"],"Healthcheck":{"Test":["CMD","true"],"Interval":5,"Retries":3}}"#);
    let check = |own: Option<api::supervisor::v1::Healthcheck>| {
        merge::merge(&with(|c| c.healthcheck = own), &image).unwrap().healthcheck
    };
    assert_eq!(check(None).unwrap().interval_ns, 5);
    let own = api::supervisor::v1::Healthcheck { interval_ns: 7, ..Default::default() };
    let merged = check(Some(own)).unwrap();
    assert_eq!((merged.interval_ns, merged.retries, merged.test.len()), (7, 3, 2));
    let none = api::supervisor::v1::Healthcheck { test: vec!["NONE".into()], ..Default::default() };
    assert!(check(Some(none)).is_none());
}

#[test]
fn limits() {
    let spec = composed(&resources(|r| {
        (r.memory_bytes, r.nano_cpus, r.cpu_shares, r.pids_limit) = (64 << 20, 500_000_000, 1, 10);
        r.cpuset_cpus = "0-1".into();
    }))
    .unwrap();
    let limits = &spec["linux"]["resources"];
    assert_eq!(limits["memory"], json!({"limit": 64 << 20, "swap": 128 << 20}));
    assert_eq!(limits["cpu"]["quota"], 50_000);
    assert_eq!(limits["cpu"]["period"], 100_000);
    assert_eq!(limits["cpu"]["shares"], 2);
    assert_eq!(limits["pids"]["limit"], 10);
    for bad in [
        resources(|r| r.memory_bytes = 1 << 20),
        resources(|r| r.memory_swap_bytes = 5),
        resources(|r| (r.memory_bytes, r.memory_swap_bytes) = (64 << 20, 1 << 20)),
        resources(|r| r.nano_cpus = 3_000_000_000),
        resources(|r| (r.nano_cpus, r.cpu_quota_us) = (1_000_000_000, 5000)),
        resources(|r| r.cpuset_cpus = "all".into()),
        resources(|r| r.oom_score_adj = Some(2000)),
        resources(|r| r.blkio_weight = 5),
        with(|c| c.ulimits = vec!["nofile".into()]),
        with(|c| c.ulimits = vec!["nofile=5:4".into()]),
        with(|c| c.ulimits = vec!["files=5".into()]),
        with(|c| c.cgroup_parent = "/a/../b".into()),
    ] {
        assert!(matches!(composed(&bad), Err(Error::Invalid { .. })), "{bad:?}");
    }
    let spec = composed(&with(|c| c.ulimits = vec!["nofile=10:20".into(), "core=-1".into()])).unwrap();
    assert_eq!(spec["process"]["rlimits"][0], json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}));
    assert_eq!(spec["process"]["rlimits"][1]["hard"], u64::MAX);
}

#[test]
fn capabilities_stay_within_ours() {
    let caps = |change: fn(&mut Security)| {
        let mut security = Security::default();
        change(&mut security);
        security::capabilities(&security, &machine().capabilities)
    };
    assert_eq!(caps(|s| s.cap_drop = vec!["ALL".into()]).unwrap(), Vec::<String>::new());
    let one = caps(|s| (s.cap_drop, s.cap_add) = (vec!["all".into()], vec!["net_admin".into()])).unwrap();
    assert_eq!(one, ["CAP_NET_ADMIN"]);
    assert_eq!(caps(|s| s.cap_add = vec!["ALL".into()]).unwrap().len(), 40);
    assert_eq!(caps(|s| s.privileged = true).unwrap().len(), 40);
    let but_one = caps(|s| (s.cap_add, s.cap_drop) = (vec!["ALL".into()], vec!["CAP_CHOWN".into()])).unwrap();
    assert_eq!(but_one.len(), 39);
    assert!(caps(|s| s.cap_add = vec!["SYS_RESOURCE".into()]).is_err(), "not ours to give");
    assert!(caps(|s| s.cap_add = vec!["FLY".into()]).is_err());
}

#[test]
fn privileged_and_seccomp() {
    let spec = composed(&secured(|s| s.privileged = true)).unwrap();
    assert!(spec["linux"].get("seccomp").is_none());
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let mounts = spec["mounts"].as_array().unwrap();
    let sys = mounts.iter().find(|m| m["destination"] == "/sys").unwrap();
    assert!(!sys["options"].as_array().unwrap().contains(&json!("ro")));

    assert!(composed(&secured(|s| s.seccomp = "unconfined".into())).unwrap()["linux"].get("seccomp").is_none());
    let custom = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
        "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
                    {"names":["mount"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    let spec = composed(&secured(|s| s.seccomp = custom.into())).unwrap();
    let filter = &spec["linux"]["seccomp"];
    assert_eq!(filter["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
    assert_eq!(filter["syscalls"].as_array().unwrap().len(), 1);
    assert_eq!(filter["syscalls"][0]["names"], json!(["mkdir"]));
    assert!(composed(&secured(|s| s.seccomp = "{".into())).is_err());
    assert!(composed(&secured(|s| s.seccomp = "{}".into())).is_err());
}

#[test]
fn mounts_are_in_order_and_replace_the_kernels() {
    let list = [mount("/a/b"), mount("/a"), mount("/dev/shm/")];
    let spec = composed_with(&with(|_| {}), &list, &Namespaces::default()).unwrap();
    let targets: Vec<_> = spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].clone()).collect();
    let position = |t: &str| targets.iter().position(|d| d == t).unwrap();
    assert!(position("/a") < position("/a/b"));
    assert_eq!(targets.iter().filter(|t| *t == "/dev/shm").count(), 1);
    let spec = composed_with(&with(|_| {}), &[mount("/dev")], &Namespaces::default()).unwrap();
    assert!(spec["mounts"].as_array().unwrap().iter().all(|m| m["destination"] != "/dev/pts"));
    let size = composed(&with(|c| c.shm_size_bytes = 1 << 20)).unwrap();
    assert!(size.to_string().contains("size=1048576"));
}

#[test]
fn tmpfs_and_bind_options() {
    let wanted =
        VolumeMount { target: "/t".into(), tmpfs_options: "size=1m,exec,mode=1777".into(), ..Default::default() };
    assert_eq!(mounts::tmpfs(&wanted).options, ["nosuid", "nodev", "size=1m", "exec", "mode=1777"]);
    assert_eq!(
        mounts::tmpfs(&VolumeMount { flags: vec!["exec".into()], ..wanted }).options,
        ["nosuid", "nodev", "size=1m", "mode=1777", "exec"]
    );
    let wanted = VolumeMount { propagation: "rshared".into(), read_only: true, ..Default::default() };
    let bind = mounts::host_bind(&wanted, true);
    assert_eq!(bind.options, ["rbind", "rshared", "ro", "rro"]);
    assert_eq!(mounts::host_bind(&wanted, false).options, ["rbind", "rshared", "ro"]);
    let writable = VolumeMount { writable_below: true, flags: vec!["noexec".into()], ..wanted.clone() };
    assert_eq!(mounts::host_bind(&writable, true).options, ["rbind", "rshared", "ro", "noexec"]);
    let alone = VolumeMount { non_recursive: true, kind: MountKind::Bind.into(), ..wanted };
    assert_eq!(mounts::host_bind(&alone, true).options, ["bind", "rshared", "ro"]);
    assert!(mounts::check_options(&alone).is_ok());
    for bad in [
        VolumeMount { recursive_read_only: true, ..alone.clone() },
        VolumeMount { kind: MountKind::Volume.into(), ..alone.clone() },
        VolumeMount { overlay: true, ..alone.clone() },
        VolumeMount { flags: vec!["rw".into()], ..alone },
    ] {
        assert!(mounts::check_options(&bad).is_err(), "{bad:?}");
    }
    assert_eq!(mounts::rootfs_propagation(&[bind]), Some("shared"));
    assert!(mounts::check_options(&VolumeMount { propagation: "odd".into(), ..Default::default() }).is_err());
}

#[test]
fn targets_are_checked() {
    for bad in [vec!["rel"], vec!["/"], vec!["/a/../b"], vec!["/a", "/a/"]] {
        let mounts = bad.iter().map(|t| VolumeMount { target: t.to_string(), ..Default::default() }).collect();
        assert!(mounts::check_targets(&with(|c| c.mounts = mounts)).is_err(), "{bad:?}");
    }
}

#[test]
fn namespaces_and_sysctls() {
    let host = Namespaces { network: Namespace::Host, uts: namespaces::Uts::Host, ..Default::default() };
    let spec = composed_with(&with(|_| {}), &[], &host).unwrap();
    assert!(spec.get("hostname").is_none());
    assert!(!spec["linux"]["namespaces"].to_string().contains("network"));
    let sysctl = |key: &str| with(|c| c.sysctls = [(key.to_string(), "1".to_string())].into());
    assert_eq!(composed(&sysctl("net.ipv4.ip_forward")).unwrap()["linux"]["sysctl"]["net.ipv4.ip_forward"], "1");
    assert!(composed_with(&sysctl("net.ipv4.ip_forward"), &[], &host).is_err());
    assert!(composed(&sysctl("vm.swappiness")).is_err());
    let joined = Namespaces { network: Namespace::Path("/run/ns/x".into()), ..Default::default() };
    let spec = composed_with(&with(|_| {}), &[], &joined).unwrap();
    assert!(
        spec["linux"]["namespaces"].to_string().contains(r#"{"path":"/run/ns/x","type":"network"}"#)
            || spec["linux"]["namespaces"].to_string().contains(r#"{"type":"network","path":"/run/ns/x"}"#)
    );
}

#[test]
fn devices() {
    let parse = |t: &str| devices::parse(t).map(|d| format!("{} {} {}", d.host, d.container, d.access));
    assert_eq!(parse("/dev/fuse").unwrap(), "/dev/fuse /dev/fuse rwm");
    assert_eq!(parse("/dev/fuse:r").unwrap(), "/dev/fuse /dev/fuse r");
    assert_eq!(parse("/dev/a:/dev/b:rw").unwrap(), "/dev/a /dev/b rw");
    assert!(parse("fuse").is_err() && parse("/a:/b:x").is_err());
    let node = devices::DeviceNode {
        path: "/dev/fuse".into(),
        kind: 'c',
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    };
    let rules = devices::rules(&[node], false);
    assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
    assert_eq!(rules.as_array().unwrap().last().unwrap()["minor"], 229);
}

#[test]
fn owners_of_a_mount() {
    let mount = Mount {
        r#type: "bind".into(),
        source: "/v".into(),
        target: "/d".into(),
        options: vec!["rbind".into(), "X-mount.idmap=u:0:5:1 u:1:1:4 g:0:7:2".into()],
    };
    assert_eq!(
        super::mounts::entry(&mount),
        serde_json::json!({
            "destination": "/d", "type": "bind", "source": "/v", "options": ["rbind"],
            "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}, {"containerID": 1, "hostID": 1, "size": 4}],
            "gidMappings": [{"containerID": 0, "hostID": 7, "size": 2}],
        })
    );
}
