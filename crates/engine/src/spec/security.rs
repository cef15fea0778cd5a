//! Capabilities and the system call filter.
use super::Machine;
use crate::error::Error;
use api::engine::v1::Security;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The capabilities a container gets: docker's default fourteen, `cap_drop`, then `cap_add`, all within `available`
/// (our own bounding set). ALL and privileged mean whatever is available; a single one that is not is refused.
pub fn capabilities(security: &Security, available: &[String]) -> Result<Vec<String>, Error> {
    let add = names("cap-add", &security.cap_add)?;
    let drop = names("cap-drop", &security.cap_drop)?;
    let all: BTreeSet<String> = available.iter().cloned().collect();
    if security.privileged {
        return Ok(all.into_iter().collect());
    }
    let mut set: BTreeSet<String> = if add.contains("ALL") {
        all.clone()
    } else if drop.contains("ALL") {
        BTreeSet::new()
    } else {
        oci::runtime::DEFAULT_CAPABILITIES.iter().map(|c| c.to_string()).filter(|c| all.contains(c)).collect()
    };
    if !drop.contains("ALL") {
        set.retain(|c| !drop.contains(c));
    }
    for name in add.into_iter().filter(|n| n != "ALL") {
        if !all.contains(&name) {
            return Err(Error::invalid("cap-add", &name, "the engine does not have this capability itself"));
        }
        set.insert(name);
    }
    Ok(set.into_iter().collect())
}

fn names(option: &'static str, list: &[String]) -> Result<BTreeSet<String>, Error> {
    list.iter()
        .map(|given| {
            let upper = given.to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(upper);
            }
            let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if KNOWN.contains(&name.as_str()) {
                Ok(name)
            } else {
                Err(Error::invalid(option, given, "there is no such capability"))
            }
        })
        .collect()
}

/// The filter: the default profile, none (unconfined or privileged), or the profile that was given as JSON.
pub fn seccomp(security: &Security, machine: &Machine, capabilities: &[String]) -> Result<Option<Value>, Error> {
    match security.seccomp.as_str() {
        "unconfined" => Ok(None),
        "" | "builtin" if security.privileged => Ok(None),
        "" | "builtin" => Ok(Some(json!(oci::seccomp::default_profile(&machine.architecture, capabilities)))),
        custom => profile(custom, machine, capabilities).map(Some),
    }
}

// Docker's profiles add to the runtime specification: `archMap`, and `includes`/`excludes` of each rule.
fn profile(text: &str, machine: &Machine, capabilities: &[String]) -> Result<Value, Error> {
    let bad = |why: String| Error::invalid("seccomp profile", "(JSON)", why);
    let given: Value = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    let mut out = json!({ "defaultAction": given["defaultAction"] });
    for key in ["defaultErrnoRet", "flags", "listenerPath", "listenerMetadata", "architectures"] {
        if let Some(value) = given.get(key).filter(|v| !v.is_null()) {
            out[key] = value.clone();
        }
    }
    if let Some(map) = given["archMap"].as_array() {
        out["architectures"] = json!(from_arch_map(map, &machine.architecture));
    }
    let rules = given["syscalls"].as_array().cloned().unwrap_or_default();
    let kept: Vec<Value> =
        rules.into_iter().filter(|r| applies(r, machine, capabilities)).map(specification_fields).collect();
    out["syscalls"] = json!(kept);
    serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(out.clone()).map_err(|e| bad(e.to_string()))?;
    Ok(out)
}

fn from_arch_map(map: &[Value], architecture: &str) -> Vec<Value> {
    let native = match architecture {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "s390x" => "SCMP_ARCH_S390X",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "riscv64" => "SCMP_ARCH_RISCV64",
        other => other,
    };
    let entry = map.iter().find(|e| e["architecture"] == native);
    let subs = entry.and_then(|e| e["subArchitectures"].as_array()).cloned().unwrap_or_default();
    std::iter::once(json!(native)).chain(subs).collect()
}

fn applies(rule: &Value, machine: &Machine, capabilities: &[String]) -> bool {
    let meets = |v: &Value, any: bool| {
        let caps = strings(&v["caps"]);
        let arches = strings(&v["arches"]);
        let cap = |c: &String| capabilities.contains(c);
        let caps_hold = if any { caps.iter().any(cap) } else { caps.iter().all(cap) };
        let arch_holds = arches.contains(&machine.architecture);
        if any { caps_hold || arch_holds } else { caps_hold && (arches.is_empty() || arch_holds) }
    };
    meets(&rule["includes"], false) && !meets(&rule["excludes"], true)
}

fn specification_fields(rule: Value) -> Value {
    let names = if rule["names"].is_array() { rule["names"].clone() } else { json!([rule["name"]]) };
    let mut out = json!({"names": names, "action": rule["action"]});
    for key in ["errnoRet", "args"] {
        if let Some(value) = rule.get(key).filter(|v| !v.is_null()) {
            out[key] = value.clone();
        }
    }
    out
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(String::from)).collect()
}

/// Every capability, at its number (linux/capability.h).
pub const KNOWN: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];
