//! `linux.memoryPolicy`: where a process's memory comes from on a machine with several NUMA nodes (set_mempolicy(2)).

use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
use serde_json::Value;

use crate::hook::chain;
use crate::mounting::Step;
use crate::{Error, Result};

/// More nodes than any kernel has (`CONFIG_NODES_SHIFT` is at most 10).
const MAX_NODES: usize = 1024;
const WORD: usize = u64::BITS as usize;

/// Checks the names before the whole configuration is parsed: a wrong one gets an error of its own.
pub(crate) fn check_names(config: &Value) -> Result<()> {
    let Some(policy) = config.pointer("/linux/memoryPolicy").filter(|p| !p.is_null()) else { return Ok(()) };
    let refuse = |what: &str, value: &Value| Err(Error::Refused(format!("invalid memory policy {what}: {value}")));
    let mode = policy.get("mode").unwrap_or(&Value::Null);
    if serde_json::from_value::<Mode>(mode.clone()).is_err() {
        return refuse("mode", mode);
    }
    let flags = policy.get("flags").and_then(Value::as_array);
    for flag in flags.into_iter().flatten() {
        if serde_json::from_value::<Flag>(flag.clone()).is_err() {
            return refuse("flag", flag);
        }
    }
    Ok(())
}

/// The arguments of set_mempolicy(2). Pure.
pub(crate) fn plan(policy: &LinuxMemoryPolicy) -> Result<(i32, Vec<u64>)> {
    let nodes = nodes(policy.nodes().as_deref().unwrap_or_default())?;
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    if matches!(mode, 0 | 4) && !nodes.is_empty() {
        return Err(Error::Refused(format!("memory policy: mode requires 0 nodes but got {}", nodes.len())));
    }
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            Flag::MpolFNumaBalancing => 1 << 13,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFStaticNodes => 1 << 15,
        }
    });
    let mut mask = vec![0; nodes.last().map_or(0, |last| last / WORD + 1)];
    for node in nodes {
        if let Some(word) = mask.get_mut(node / WORD) {
            *word |= 1 << (node % WORD);
        }
    }
    Ok((mode | flags, mask))
}

/// Applies a policy to this thread and what it becomes.
pub(crate) fn apply(policy: &LinuxMemoryPolicy) -> Step {
    let (mode, mask) = plan(policy).map_err(|e| e.line())?;
    // The kernel takes one bit less than it is told.
    let bits = if mask.is_empty() { 0 } else { mask.len() * WORD + 1 };
    create_syscall().set_mempolicy(mode, &mask, bits as u64).map_err(|e| format!("memory policy: {}", chain(&e)))
}

/// The numbers in a list such as `0-3,7`, ascending.
fn nodes(list: &str) -> Result<Vec<usize>> {
    let bad = || Error::Refused(format!("invalid memory policy node: {list:?}"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < MAX_NODES).ok_or_else(bad);
    let mut all = Vec::new();
    for part in list.split(',').filter(|p| !p.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)?..=number(last)?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(policy: &Value) -> Result<(i32, Vec<u64>)> {
        check_names(&json!({"linux": {"memoryPolicy": policy}}))?;
        plan(&serde_json::from_value(policy.clone()).unwrap())
    }

    #[test]
    fn policies() {
        let good = json!({"mode": "MPOL_BIND", "nodes": "0-1,65", "flags": ["MPOL_F_STATIC_NODES"]});
        assert_eq!(of(&good).unwrap(), (2 | 1 << 15, vec![3, 2]));
        assert_eq!(of(&json!({"mode": "MPOL_DEFAULT"})).unwrap(), (0, vec![]));
    }

    #[test]
    fn what_is_refused() {
        for (policy, why) in [
            (json!({}), "invalid memory policy mode"),
            (json!({"mode": "INTERLEAVE", "nodes": "0"}), "invalid memory policy mode"),
            (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["x"]}), "invalid memory policy flag"),
            (json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), "invalid memory policy node"),
            (json!({"mode": "MPOL_BIND", "nodes": "a"}), "invalid memory policy node"),
            (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "mode requires 0 nodes but got 8"),
        ] {
            let error = of(&policy).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
