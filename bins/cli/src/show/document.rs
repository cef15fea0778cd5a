//! Docker's documents for `inspect`.

use api::engine::v1::{ContainerConfig, ContainerView, MountKind, MountPoint};
use api::network::v1::{Endpoint, Network};
use api::supervisor::v1::{ContainerState, ContainerStatus, RestartPolicy};
use api::volume::v1::Volume;
use serde_json::{Map, Value, json};

use super::container::{arguments, exit_code, state_name};
use super::port;
use crate::flags::policy::restart_name;

const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container.
pub fn container(view: &ContainerView, size: bool) -> Value {
    let container = view.container.clone().unwrap_or_default();
    let spec = container.spec.clone().unwrap_or_default();
    let config = view.config.clone().unwrap_or_default();
    let oci: Value = serde_json::from_slice(&spec.oci_spec).unwrap_or_default();
    let arguments = arguments(&container);
    let mut document = json!({
        "Id": spec.id,
        "Created": container.created_at,
        "Path": arguments.first(),
        "Args": arguments.get(1..).unwrap_or_default(),
        "State": state(&container.state.clone().unwrap_or_default()),
        "Image": view.image_id,
        "LogPath": container.log_path,
        "Name": format!("/{}", spec.name),
        "RestartCount": container.state.as_ref().map_or(0, |state| state.restart_count),
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(&config, spec.restart.as_ref().or(config.restart.as_ref())),
        "Mounts": mounts(&view.mounts),
        "Config": {
            "Hostname": oci["hostname"].as_str().unwrap_or(&config.hostname),
            "Domainname": config.domainname,
            "User": spec.user,
            "Tty": config.tty,
            "OpenStdin": config.open_stdin,
            "StdinOnce": config.stdin_once,
            "Env": oci["process"]["env"],
            "Cmd": config.cmd,
            "Entrypoint": config.entrypoint.as_ref().map(|entrypoint| &entrypoint.args),
            "Image": if spec.image.is_empty() { &config.image } else { &spec.image },
            "WorkingDir": oci["process"]["cwd"],
            "Labels": spec.labels,
            "StopSignal": spec.stop_signal,
            "StopTimeout": config.stop_timeout_seconds,
            "Healthcheck": spec.healthcheck.as_ref().map(|check| json!({
                "Test": check.test, "Interval": check.interval_ns, "Timeout": check.timeout_ns,
                "StartPeriod": check.start_period_ns, "Retries": check.retries,
            })),
        },
        "NetworkSettings": network_settings(&view.endpoints),
        "Bundle": container.bundle,
    });
    if size {
        document["SizeRw"] = json!(view.size_rw_bytes);
    }
    document
}

fn state(state: &ContainerState) -> Value {
    let time = |text: &str| if text.is_empty() { NEVER.to_owned() } else { text.to_owned() };
    let status = state.status();
    let mut document = json!({
        "Status": state_name(state),
        "Running": matches!(status, ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting),
        "Paused": status == ContainerStatus::Paused,
        "Restarting": status == ContainerStatus::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == ContainerStatus::Dead,
        "Pid": state.pid,
        "ExitCode": exit_code(state),
        "Error": state.error,
        "StartedAt": time(&state.started_at),
        "FinishedAt": time(&state.finished_at),
    });
    if !state.health.is_empty() && state.health != "none" {
        document["Health"] = json!({"Status": state.health});
    }
    document
}

/// The restart policy is given apart: it can have been changed since.
fn host_config(config: &ContainerConfig, restart: Option<&RestartPolicy>) -> Value {
    let resources = config.resources.clone().unwrap_or_default();
    let security = config.security.clone().unwrap_or_default();
    let network = config.network.clone().unwrap_or_default();
    let (restart, retries) = restart_name(restart);
    let mode = match (network.mode.as_str(), network.attachments.first()) {
        ("", Some(first)) => first.network.clone(),
        ("", None) => "bridge".into(),
        (mode, _) => mode.to_owned(),
    };
    let mut security_options: Vec<String> = Vec::new();
    if security.no_new_privileges {
        security_options.push("no-new-privileges".into());
    }
    if !security.seccomp.is_empty() {
        security_options.push(format!("seccomp={}", security.seccomp));
    }
    json!({
        "Binds": config.mounts.iter().filter(|mount| mount.kind() != MountKind::Tmpfs && !mount.source.is_empty())
            .map(|mount| format!("{}:{}{}", mount.source, mount.target, if mount.read_only { ":ro" } else { "" }))
            .collect::<Vec<_>>(),
        "LogConfig": config.log.as_ref().map_or_else(|| json!({"Type": "json-file", "Config": {}}),
            |log| json!({"Type": log.driver, "Config": log.options})),
        "NetworkMode": mode,
        "PortBindings": bindings(&[Endpoint { ports: network.ports.clone(), ..Default::default() }]),
        "PublishAllPorts": network.publish_all,
        "RestartPolicy": {"Name": restart, "MaximumRetryCount": retries},
        "AutoRemove": config.auto_remove,
        "CapAdd": security.cap_add, "CapDrop": security.cap_drop,
        "Privileged": security.privileged, "SecurityOpt": security_options, "UsernsMode": security.userns,
        "CgroupnsMode": config.cgroupns_mode, "CgroupParent": config.cgroup_parent, "VolumeDriver": config.volume_driver,
        "Dns": network.dns, "DnsSearch": network.dns_search, "DnsOptions": network.dns_options,
        "ExtraHosts": network.extra_hosts,
        "GroupAdd": config.additional_groups,
        "IpcMode": config.ipc_mode, "PidMode": config.pid_mode, "UTSMode": config.uts_mode,
        "ReadonlyRootfs": config.read_only_rootfs,
        "ShmSize": if config.shm_size_bytes == 0 { 64 << 20 } else { config.shm_size_bytes },
        "Sysctls": config.sysctls, "Devices": config.devices, "Ulimits": config.ulimits,
        "Runtime": config.runtime, "Init": config.init,
        "Memory": resources.memory_bytes, "MemorySwap": resources.memory_swap_bytes,
        "MemoryReservation": resources.memory_reservation_bytes,
        "NanoCpus": resources.nano_cpus, "CpuShares": resources.cpu_shares, "CpuPeriod": resources.cpu_period_us,
        "CpuQuota": resources.cpu_quota_us, "CpusetCpus": resources.cpuset_cpus, "CpusetMems": resources.cpuset_mems,
        "PidsLimit": resources.pids_limit, "OomKillDisable": resources.oom_kill_disable,
        "OomScoreAdj": resources.oom_score_adj, "BlkioWeight": resources.blkio_weight,
    })
}

fn mounts(mounts: &[MountPoint]) -> Vec<Value> {
    let kind = |kind| match kind {
        MountKind::Bind => "bind",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
        _ => "volume",
    };
    let document = |mount: &MountPoint| {
        let mut document = json!({
            "Type": kind(mount.kind()), "Source": mount.source, "Destination": mount.target, "Mode": "",
            "RW": !mount.read_only, "Propagation": mount.propagation,
        });
        if mount.kind() == MountKind::Volume {
            document["Name"] = json!(mount.name);
            document["Driver"] = json!(mount.driver);
        }
        document
    };
    mounts.iter().map(document).collect()
}

fn network_settings(endpoints: &[Endpoint]) -> Value {
    let mut networks = Map::new();
    for endpoint in endpoints {
        networks.insert(endpoint.network_name.clone(), endpoint_document(endpoint));
    }
    let first = endpoints.first().map(endpoint_document).unwrap_or_default();
    json!({
        "SandboxKey": endpoints.first().map_or("", |endpoint| endpoint.netns_path.as_str()),
        "Ports": bindings(endpoints),
        "IPAddress": first["IPAddress"].as_str().unwrap_or_default(),
        "Gateway": first["Gateway"].as_str().unwrap_or_default(),
        "MacAddress": first["MacAddress"].as_str().unwrap_or_default(),
        "Networks": networks,
    })
}

fn endpoint_document(endpoint: &Endpoint) -> Value {
    let split = |address: &String| {
        let (ip, length) = address.split_once('/').unwrap_or((address, "0"));
        (ip.to_owned(), length.parse::<u32>().unwrap_or(0))
    };
    let of =
        |six: bool| endpoint.addresses.iter().map(split).find(|(ip, _)| ip.contains(':') == six).unwrap_or_default();
    let gateway = |six: bool| endpoint.gateways.iter().find(|ip| ip.contains(':') == six).cloned().unwrap_or_default();
    let ((ip, length), (ip6, length6)) = (of(false), of(true));
    json!({
        "NetworkID": endpoint.network_id, "EndpointID": endpoint.id,
        "IPAddress": ip, "IPPrefixLen": length, "Gateway": gateway(false),
        "GlobalIPv6Address": ip6, "GlobalIPv6PrefixLen": length6, "IPv6Gateway": gateway(true),
        "MacAddress": endpoint.mac_address, "Aliases": endpoint.names, "DNSNames": endpoint.names,
    })
}

/// {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
fn bindings(endpoints: &[Endpoint]) -> Value {
    let mut ports: Map<String, Value> = Map::new();
    for (container, host) in port::lines(endpoints) {
        let Some((ip, number)) = host.rsplit_once(':') else { continue };
        let binding = json!({"HostIp": ip.trim_matches(['[', ']']), "HostPort": number});
        match ports.entry(container).or_insert_with(|| json!([])) {
            Value::Array(all) => all.push(binding),
            _ => continue,
        }
    }
    ports.into()
}

/// A network, with who is on it.
pub fn network(network: &Network, endpoints: &[Endpoint]) -> Value {
    let mut containers = Map::new();
    for endpoint in endpoints {
        let of = |six: bool| endpoint.addresses.iter().find(|address| address.contains(':') == six);
        containers.insert(
            endpoint.owner.clone(),
            json!({
                "Name": endpoint.names.first(), "EndpointID": endpoint.id, "MacAddress": endpoint.mac_address,
                "IPv4Address": of(false).cloned().unwrap_or_default(),
                "IPv6Address": of(true).cloned().unwrap_or_default(),
            }),
        );
    }
    json!({
        "Name": network.name, "Id": network.id, "Created": network.created_at, "Scope": "local",
        "Driver": network.driver, "EnableIPv6": network.ipv6, "Internal": network.internal,
        "IPAM": {"Driver": "default", "Config": network.subnets.iter().map(|subnet| {
            let mut document = json!({"Subnet": subnet.subnet, "Gateway": subnet.gateway});
            if !subnet.ip_range.is_empty() {
                document["IPRange"] = json!(subnet.ip_range);
            }
            document
        }).collect::<Vec<_>>()},
        "Bridge": network.bridge, "DNSEnabled": network.dns_enabled,
        "Containers": containers, "Options": network.options, "Labels": network.labels,
    })
}

/// A volume.
pub fn volume(volume: &Volume) -> Value {
    let mut document = json!({
        "CreatedAt": volume.created_at, "Driver": volume.driver, "Labels": volume.labels,
        "Mountpoint": volume.mountpoint, "Name": volume.name, "Options": volume.options, "Scope": "local",
        "Anonymous": volume.anonymous, "Consumers": volume.consumers, "Id": volume.id,
    });
    if volume.size_limit_bytes > 0 {
        document["SizeLimit"] = json!(volume.size_limit_bytes);
    }
    if !volume.status.is_empty() {
        document["Status"] = json!(volume.status);
    }
    if volume.size_bytes >= 0 {
        document["UsageData"] = json!({"Size": volume.size_bytes, "RefCount": volume.consumers.len()});
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::engine::v1::NetworkConfig;
    use api::network::v1::PortMapping;

    #[test]
    fn container_document() {
        let ports =
            vec![PortMapping { host_ip: String::new(), host_port: 8080, container_port: 80, range: 1, protocol: 1 }];
        let view = ContainerView {
            config: Some(ContainerConfig {
                network: Some(NetworkConfig { ports: ports.clone(), ..Default::default() }),
                ..Default::default()
            }),
            endpoints: vec![Endpoint {
                network_name: "blue".into(),
                addresses: vec!["10.89.0.2/24".into(), "fd00::2/64".into()],
                gateways: vec!["10.89.0.1".into()],
                ports,
                ..Default::default()
            }],
            ..Default::default()
        };
        let document = container(&view, false);
        let blue = &document["NetworkSettings"]["Networks"]["blue"];
        assert_eq!((blue["IPAddress"].as_str(), blue["IPPrefixLen"].as_u64()), (Some("10.89.0.2"), Some(24)));
        assert_eq!(blue["GlobalIPv6Address"], "fd00::2");
        assert_eq!(document["NetworkSettings"]["Ports"]["80/tcp"][0], json!({"HostIp": "0.0.0.0", "HostPort": "8080"}));
        assert_eq!(document["State"]["Status"], "created");
        assert_eq!(document["HostConfig"]["NetworkMode"], "bridge");
    }
}
