//! Limits (`linux.resources`) and sysctls.
use super::Machine;
use super::namespaces::{Namespace, Namespaces, Uts};
use crate::error::Error;
use api::engine::v1::{ContainerConfig, Resources};
use serde_json::{Map, Value, json};

const MIN_MEMORY_BYTES: i64 = 6 << 20;
const CPU_PERIOD_US: u64 = 100_000;

/// Memory, CPU, pids and block I/O as the runtime wants them.
pub fn resources(config: &ContainerConfig, machine: &Machine) -> Result<Value, Error> {
    let wanted = config.resources.clone().unwrap_or_default();
    let mut out = Map::new();
    let mut put = |key: &str, value: Map<String, Value>| {
        if !value.is_empty() {
            out.insert(key.into(), Value::Object(value));
        }
    };
    put("memory", memory(&wanted, machine)?);
    put("cpu", cpu(&wanted, machine)?);
    if wanted.pids_limit != 0 {
        put("pids", object([("limit", json!(wanted.pids_limit.max(-1)))]));
    }
    if wanted.blkio_weight != 0 {
        if !(10..=1000).contains(&wanted.blkio_weight) {
            return Err(Error::invalid("block I/O weight", wanted.blkio_weight, "it goes from 10 to 1000"));
        }
        put("blockIO", object([("weight", json!(wanted.blkio_weight))]));
    }
    Ok(Value::Object(out))
}

fn memory(wanted: &Resources, machine: &Machine) -> Result<Map<String, Value>, Error> {
    let limit = wanted.memory_bytes;
    let mut out = Map::new();
    if limit < 0 || (limit > 0 && limit < MIN_MEMORY_BYTES) {
        return Err(Error::invalid("memory limit", limit, "the least is 6 MiB"));
    }
    if limit > 0 {
        out.insert("limit".into(), json!(limit));
    }
    match wanted.memory_swap_bytes {
        0 if limit > 0 && machine.swap_limit => {
            out.insert("swap".into(), json!(limit.saturating_mul(2)));
        }
        0 => {}
        -1 => {
            out.insert("swap".into(), json!(-1));
        }
        swap if limit == 0 => {
            return Err(Error::invalid("memory and swap limit", swap, "a memory limit is needed with it"));
        }
        swap if swap < limit => {
            return Err(Error::invalid("memory and swap limit", swap, "it is below the memory limit"));
        }
        swap => {
            out.insert("swap".into(), json!(swap));
        }
    }
    if wanted.memory_reservation_bytes > 0 {
        if limit > 0 && wanted.memory_reservation_bytes > limit {
            let value = wanted.memory_reservation_bytes;
            return Err(Error::invalid("memory reservation", value, "it is above the memory limit"));
        }
        out.insert("reservation".into(), json!(wanted.memory_reservation_bytes));
    }
    if wanted.oom_kill_disable {
        out.insert("disableOOMKiller".into(), json!(true));
    }
    Ok(out)
}

fn cpu(wanted: &Resources, machine: &Machine) -> Result<Map<String, Value>, Error> {
    let mut out = Map::new();
    if wanted.nano_cpus != 0 {
        if wanted.cpu_quota_us != 0 || wanted.cpu_period_us != 0 {
            return Err(Error::invalid("cpus", wanted.nano_cpus, "it cannot go together with a CPU quota or period"));
        }
        let most = i64::from(machine.cpus.max(1)) * 1_000_000_000;
        if !(10_000_000..=most).contains(&wanted.nano_cpus) {
            let why = format!("it goes from 0.01 to {}, the number of CPUs here", machine.cpus.max(1));
            return Err(Error::invalid("cpus", wanted.nano_cpus as f64 / 1e9, why));
        }
        out.insert("period".into(), json!(CPU_PERIOD_US));
        out.insert("quota".into(), json!(wanted.nano_cpus / 10_000));
    }
    if wanted.cpu_period_us != 0 {
        if !(1_000..=1_000_000).contains(&wanted.cpu_period_us) {
            return Err(Error::invalid("CPU period", wanted.cpu_period_us, "it goes from 1000 to 1000000 us"));
        }
        out.insert("period".into(), json!(wanted.cpu_period_us));
    }
    if wanted.cpu_quota_us != 0 {
        if wanted.cpu_quota_us > 0 && wanted.cpu_quota_us < 1_000 {
            return Err(Error::invalid("CPU quota", wanted.cpu_quota_us, "the least is 1000 us"));
        }
        out.insert("quota".into(), json!(wanted.cpu_quota_us));
    }
    if wanted.cpu_shares != 0 {
        out.insert("shares".into(), json!(wanted.cpu_shares.clamp(2, 262_144)));
    }
    for (key, value) in [("cpus", &wanted.cpuset_cpus), ("mems", &wanted.cpuset_mems)] {
        if !value.is_empty() {
            if !value.chars().all(|c| c.is_ascii_digit() || c == ',' || c == '-') {
                return Err(Error::invalid("CPU set", value, "expected a list such as 0-3,7"));
            }
            out.insert(key.into(), json!(value));
        }
    }
    Ok(out)
}

/// The sysctls, refused when they are not of a namespace that the container has to itself.
pub fn sysctls(config: &ContainerConfig, namespaces: &Namespaces) -> Result<Option<Value>, Error> {
    for key in config.sysctls.keys() {
        let (allowed, whose) = if key.starts_with("net.") {
            (namespaces.network != Namespace::Host, "network")
        } else if key.starts_with("fs.mqueue.") || IPC.contains(&key.as_str()) || key.starts_with("kernel.shm") {
            (namespaces.ipc == Namespace::Private, "IPC")
        } else if key == "kernel.domainname" || key == "kernel.hostname" {
            (namespaces.uts == Uts::Private, "UTS")
        } else {
            return Err(Error::invalid("sysctl", key, "it is not of a namespace: it would change the host"));
        };
        if !allowed {
            return Err(Error::invalid("sysctl", key, format!("the container shares the host's {whose} namespace")));
        }
        let joins = config.network.as_ref().is_some_and(|network| network.mode.starts_with("container:"));
        if whose == "network" && joins && namespaces.user.is_some() {
            return Err(Error::invalid(
                "sysctl",
                key,
                "in a user namespace it is for the container whose network it is",
            ));
        }
    }
    // From inside of a user namespace they cannot be set: the network tool does it.
    let outside = |key: &str| namespaces.user.is_some() && key.starts_with("net.");
    let inside = super::sorted(config.sysctls.iter().filter(|(key, _)| !outside(key)));
    Ok((!inside.is_empty()).then(|| json!(inside)))
}

const IPC: [&str; 4] = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"];

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}
