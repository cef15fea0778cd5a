//! From what iptables-save(8) printed to what iptables-restore(8) is to do: pure functions.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::rules::{Family, Table};

/// The tables that ours can lie in.
const TABLES: [&str; 4] = ["raw", "nat", "filter", "security"];

/// The lines of one table.
fn lines<'a>(saved: &'a str, table: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("*{table}");
    saved.lines().skip_while(move |line| *line != head).skip(1).take_while(|line| *line != "COMMIT")
}

/// Names of the chains with this prefix.
fn chains<'a>(saved: &'a str, table: &str, name: &str) -> BTreeSet<&'a str> {
    let prefix = format!("{name}-");
    let names = lines(saved, table).filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    names.filter(|chain| chain.starts_with(&prefix)).collect()
}

/// The rule of a chain of others that calls one of ours, and which.
fn called<'a>(line: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let prefix = format!("{name}-");
    let (from, rule) = line.strip_prefix("-A ")?.split_once(' ')?;
    let target = rule.rsplit_once("-j ").or_else(|| rule.rsplit_once("-g "))?.1;
    (!from.starts_with(&prefix) && target.starts_with(&prefix)).then_some((from, target))
}

/// Puts the wanted chains in place of all chains of this name. Empty when nothing has to be done.
pub(super) fn write(saved: &str, name: &str, wanted: &[Table]) -> String {
    let mut script = String::new();
    for table in TABLES {
        let want = wanted.iter().find(|want| want.name == table);
        let there = chains(saved, table, name);
        if want.is_none() && there.is_empty() {
            continue;
        }
        let _ = writeln!(script, "*{table}");
        let fresh: BTreeSet<&str> =
            want.iter().flat_map(|want| &want.chains).map(|chain| chain.name.as_str()).collect();
        // Naming a chain makes it, or empties it.
        for chain in fresh.union(&there) {
            let _ = writeln!(script, ":{chain} - [0:0]");
        }
        for line in lines(saved, table).filter(|line| called(line, name).is_some()) {
            let _ = writeln!(script, "{}", line.replacen("-A ", "-D ", 1));
        }
        for jump in want.iter().flat_map(|want| &want.jumps) {
            let verb = if jump.first { "-I" } else { "-A" };
            let _ = writeln!(script, "{verb} {} {}", jump.from, jump.rule);
        }
        for chain in want.iter().flat_map(|want| &want.chains) {
            for rule in &chain.rules {
                let _ = writeln!(script, "-A {} {rule}", chain.name);
            }
        }
        for chain in there.difference(&fresh) {
            let _ = writeln!(script, "-X {chain}");
        }
        script += "COMMIT\n";
    }
    script
}

/// What of the wanted is not there. The kernel's way of writing a rule is not ours, so rules are counted.
pub(super) fn differences(saved: &str, wanted: &[Table], family: Family) -> Vec<String> {
    let mut differences = Vec::new();
    for table in wanted {
        let at = || format!("{family:?} table {}", table.name).to_lowercase();
        for chain in &table.chains {
            let head = format!("-A {} ", chain.name);
            let there = lines(saved, table.name).filter(|line| line.starts_with(&head)).count();
            let declared = format!(":{} ", chain.name);
            if !lines(saved, table.name).any(|line| line.starts_with(&declared)) {
                differences.push(format!("{}: chain {} is gone", at(), chain.name));
            } else if there != chain.rules.len() {
                let wanted = chain.rules.len();
                differences.push(format!("{}: chain {} has {there} rules of {wanted}", at(), chain.name));
            }
        }
        for jump in &table.jumps {
            let target = jump.rule.rsplit(' ').next().unwrap_or_default();
            let name = target.rsplit_once('-').map_or(target, |(name, _)| name);
            let calls = |line: &str| called(line, name) == Some((jump.from, target));
            if !lines(saved, table.name).any(calls) {
                differences.push(format!("{}: chain {} does not call {target}", at(), jump.from));
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::firewall::iptables::rules::{Chain, Jump};

    const SAVED: &str = "# by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:PIER-OLD - [0:0]\n:PIER-PUBLISH - [0:0]\n\
        :PIER2-PUBLISH - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j PIER-PUBLISH\n-A PREROUTING -j DOCKER\n\
        -A PREROUTING -j PIER2-PUBLISH\n-A PIER-PUBLISH -p tcp -j DNAT --to-destination 10.1.0.2:80\nCOMMIT\n";

    fn wanted() -> Table {
        Table {
            name: "nat",
            jumps: vec![Jump {
                from: "PREROUTING",
                first: true,
                rule: "-m addrtype --dst-type LOCAL -j PIER-PUBLISH".into(),
            }],
            chains: vec![Chain { name: "PIER-PUBLISH".into(), rules: vec!["-p udp -j RETURN".into()] }],
        }
    }

    #[test]
    fn only_our_own_chains_are_written() {
        assert_eq!(
            write(SAVED, "PIER", &[wanted()]),
            "*nat\n:PIER-OLD - [0:0]\n:PIER-PUBLISH - [0:0]\n-D PREROUTING -m addrtype --dst-type LOCAL -j PIER-PUBLISH\n\
             -I PREROUTING -m addrtype --dst-type LOCAL -j PIER-PUBLISH\n-A PIER-PUBLISH -p udp -j RETURN\n-X PIER-OLD\n\
             COMMIT\n"
        );
        assert_eq!(write("", "PIER", &[]), "");
        let gone = write(SAVED, "PIER", &[]);
        assert!(gone.ends_with("-X PIER-OLD\n-X PIER-PUBLISH\nCOMMIT\n") && !gone.contains("PIER2"), "{gone}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let named = |saved: &str| differences(saved, &[wanted()], Family::V4);
        assert!(named(SAVED).is_empty(), "{:?}", named(SAVED));
        assert_eq!(
            named(&SAVED.replace("-A PIER-PUBLISH", "-A OTHER")),
            ["v4 table nat: chain PIER-PUBLISH has 0 rules of 1"]
        );
        assert_eq!(
            named(&SAVED.replace("LOCAL -j PIER-PUBLISH", "LOCAL -j OTHER")),
            ["v4 table nat: chain PREROUTING does not call PIER-PUBLISH"]
        );
        assert_eq!(named("").len(), 2);
    }
}
