//! Policies as rules: in the table, and, for what one bridge switches by itself, in a table of family bridge.

use std::fmt::Write as _;

use crate::policy::Compiled;

/// Sets and chain `policies` of the inet table. Who calls and who is called are sets, so that rules are as many as
/// policies are.
pub(super) fn routed(policies: &[Compiled]) -> String {
    let rules = lines(policies, |policy, matched| match policy.deny {
        true => vec![format!("{matched} reject with icmpx type admin-prohibited")],
        false => vec![format!("{matched} return")],
    });
    format!("{}  chain policies {{\n{rules}  }}\n", sets(policies))
}

/// The whole table of family bridge. Few kernels track connections there, so it goes by the packet: a denied TCP
/// connection cannot be opened but may be answered; of other protocols nothing goes that way.
pub(super) fn bridged(table: &str, policies: &[Compiled]) -> String {
    let rules = lines(policies, |policy, matched| match policy.deny {
        true => vec![
            format!("{matched} tcp flags & (syn | ack) == syn drop"),
            format!("{matched} meta l4proto != tcp drop"),
        ],
        false => vec![format!("{matched} accept")],
    });
    format!(
        "table bridge {table} {{\n{}  chain policies {{\n    type filter hook forward priority 0; policy accept;\n\
         {rules}  }}\n}}\n",
        sets(policies)
    )
}

fn sets(policies: &[Compiled]) -> String {
    let mut text = String::new();
    for (number, policy) in policies.iter().enumerate() {
        for (side, addresses) in [("from", &policy.from), ("to", &policy.to)] {
            for (family, list) in FAMILIES.iter().zip(addresses) {
                let elements =
                    if list.is_empty() { String::new() } else { format!(" elements = {{ {} }};", list.join(", ")) };
                let _ = writeln!(text, "  set p{number}_{side}{} {{ type {};{elements} }}", family.digit, family.kind);
            }
        }
    }
    text
}

struct Family {
    digit: char,
    kind: &'static str,
    word: &'static str,
}

const FAMILIES: [Family; 2] =
    [Family { digit: '4', kind: "ipv4_addr", word: "ip" }, Family { digit: '6', kind: "ipv6_addr", word: "ip6" }];

/// The rules of each policy, for each family and range of ports.
fn lines(policies: &[Compiled], rules: impl Fn(&Compiled, &str) -> Vec<String>) -> String {
    let mut text = String::new();
    for (number, policy) in policies.iter().enumerate() {
        for Family { digit, word, .. } in FAMILIES {
            let who = format!("{word} saddr @p{number}_from{digit} {word} daddr @p{number}_to{digit}");
            let ports = policy
                .ports
                .iter()
                .map(|ports| format!("{who} meta l4proto {} th dport {}-{}", ports.protocol, ports.first, ports.last));
            let matched: Vec<String> = if policy.ports.is_empty() { vec![who.clone()] } else { ports.collect() };
            for rule in matched.iter().flat_map(|matched| rules(policy, matched)) {
                let _ = writeln!(text, "    {rule}");
            }
        }
    }
    text
}
