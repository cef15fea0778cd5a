//! What the kernel's table has, compared with what it should have.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;

use netlink_bindings::nftables::{Chained, IterableSetelemAttrs, OpGetruleDump, OpGetsetelemDump};

use super::{DECLARATIONS, netfilter, ruleset, wire};
use crate::firewall::elements::{Elements, family};

/// Elements and rules that are not there, or are not wanted, one line each.
pub(super) fn differences(table: &str, elements: &Elements) -> io::Result<Vec<String>> {
    let mut differences = Vec::new();
    let elements = elements.copied(elements.host_first());
    let wanted = rules_of(&ruleset(table, &elements, &[]));
    let there = rules(table)?;
    for (chain, count) in &wanted {
        let has = there.get(chain).copied().unwrap_or(0);
        if has != *count {
            differences.push(format!("chain {chain} of the firewall table has {has} rules of {count}"));
        }
    }
    let sets = DECLARATIONS.lines().filter_map(|line| line.split_whitespace().nth(1));
    for set in sets.chain(elements.sets().into_iter().filter(|set| family(set) != "inet")) {
        let there = keys(table, set)?;
        let all: Vec<_> = elements
            .of(set)
            .flat_map(|element| wire::items(element).into_iter().map(move |item| (element, item)))
            .filter(|(_, item)| !item.is_end)
            .collect();
        let lost = all.iter().filter(|(_, item)| !there.contains(&item.key));
        let lost: BTreeSet<String> = lost.map(|(element, _)| element.to_string()).collect();
        differences.extend(lost.into_iter().map(|element| format!("set {set} of the firewall table lacks {element}")));
        let wanted: BTreeSet<&Vec<u8>> = all.iter().map(|(_, item)| &item.key).collect();
        let strange = there.iter().filter(|key| !wanted.contains(key)).count();
        if strange > 0 {
            differences.push(format!("set {set} of the firewall table has {strange} elements of nobody"));
        }
    }
    Ok(differences)
}

/// How many rules each chain of family inet has in a text of ours.
fn rules_of(text: &str) -> BTreeMap<String, usize> {
    let (mut counts, mut chain, mut table) = (BTreeMap::new(), None, "");
    for line in text.lines().map(str::trim) {
        let mut words = line.split(' ');
        match (words.next(), words.next(), line.ends_with('{')) {
            (Some("table"), Some(family), true) => table = family,
            (Some("chain"), Some(name), true) if table == "inet" => {
                counts.insert(name.to_owned(), 0);
                chain = Some(name);
            }
            (Some("}"), ..) => chain = None,
            (Some("type" | "#" | ""), ..) => {}
            _ => {
                if let Some(count) = chain.and_then(|chain| counts.get_mut(chain)) {
                    *count += 1;
                }
            }
        }
    }
    counts
}

/// How many rules each chain has in the kernel.
fn rules(table: &str) -> io::Result<BTreeMap<String, usize>> {
    let mut question = Chained::new(1);
    question.request().op_getrule_dump(&netfilter::header("inet")).encode().push_table_bytes(table.as_bytes());
    let chains = netfilter::list(question.finalize().buf(), |payload| {
        let (_, rule) = OpGetruleDump::decode_request(payload);
        // A kernel that knows no filter lists all tables.
        let of_table = rule.get_table().ok().map(CStr::to_bytes) == Some(table.as_bytes());
        rule.get_chain().ok().filter(|_| of_table).map(|chain| chain.to_string_lossy().into_owned())
    })?;
    let mut counts = BTreeMap::new();
    chains.into_iter().for_each(|chain| *counts.entry(chain).or_insert(0) += 1);
    Ok(counts)
}

/// The keys that a set has in the kernel. A set that is not there has none.
fn keys(table: &str, set: &str) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut question = Chained::new(1);
    let mut request = question.request().op_getsetelem_dump(&netfilter::header(family(set)));
    request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(set.as_bytes());
    drop(request);
    let parts = netfilter::list(question.finalize().buf(), |payload| {
        let (_, list) = OpGetsetelemDump::decode_request(payload);
        let elements = list.get_elements().ok()?;
        Some(elements.get_elem().filter_map(key).collect::<Vec<_>>())
    });
    match parts {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        parts => Ok(parts?.into_iter().flatten().collect()),
    }
}

/// Ends of intervals are left out: nft writes one more of them, at 0, than there are intervals.
fn key(element: IterableSetelemAttrs<'_>) -> Option<Vec<u8>> {
    let is_end = element.get_flags().is_ok_and(|flags| flags == wire::INTERVAL_END.to_be_bytes());
    if is_end {
        return None;
    }
    Some(element.get_key().ok()?.get_value().ok()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_text_are_counted() {
        let counts = rules_of(&ruleset("t", &Elements::default(), &[]));
        let of = |chain: &str| counts.get(chain).copied();
        assert_eq!(
            (of("guard"), of("publish"), of("prerouting"), of("policies")),
            (Some(1), Some(7), Some(2), Some(0))
        );
        assert_eq!(counts.len(), 8, "{counts:?}");
    }
}
