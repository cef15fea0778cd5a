//! Policies as chains, one behind the other: each is left by `-g` (so that RETURN, in any of them, ends them all) for
//! the next one.

use super::rules::{Chain, Family};
use crate::policy::Compiled;

/// The chain to begin with.
pub(super) fn first(name: &str) -> String {
    who(name, 0)
}

/// The chain of a policy that looks at who calls.
fn who(name: &str, number: usize) -> String {
    format!("{name}-P{number}")
}

/// The chain of a policy that looks at who is called.
fn whom(name: &str, number: usize) -> String {
    format!("{name}-P{number}T")
}

/// Two chains for each policy, and an empty one behind the last.
pub(super) fn chains(name: &str, policies: &[Compiled], family: Family) -> Vec<Chain> {
    if policies.is_empty() {
        return Vec::new();
    }
    let mut chains = Vec::new();
    for (number, policy) in policies.iter().enumerate() {
        let next = || [format!("-g {}", who(name, number + 1))];
        let at = usize::from(family == Family::V6);
        let callers = policy.from[at].iter().map(|address| format!("-s {address} -g {}", whom(name, number)));
        chains.push(Chain { name: who(name, number), rules: callers.chain(next()).collect() });
        let called = policy.to[at].iter().flat_map(|address| matches(policy, address, family));
        chains.push(Chain { name: whom(name, number), rules: called.chain(next()).collect() });
    }
    chains.push(Chain { name: who(name, policies.len()), rules: Vec::new() });
    chains
}

/// The rules for one who is called.
fn matches(policy: &Compiled, address: &str, family: Family) -> Vec<String> {
    let target = if policy.deny { family.reject() } else { "-j RETURN" };
    if policy.ports.is_empty() {
        return vec![format!("-d {address} {target}")];
    }
    let ports = policy.ports.iter().map(|ports| {
        let (protocol, first, last) = (ports.protocol, ports.first, ports.last);
        format!("-d {address} -p {protocol} -m {protocol} --dport {first}:{last} {target}")
    });
    ports.collect()
}
