//! Other tables of the host that may drop what Pier's lets pass.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Findings, Verdict};

/// Names the base chains of other tables, at the hooks a packet to or from an endpoint passes, that drop by policy.
pub(super) fn look(findings: &mut Findings, own: &str) {
    let listed = Command::new("nft").args(["-j", "list", "chains"]).stderr(Stdio::null()).output();
    let chains: Value = match listed.map(|output| serde_json::from_slice(&output.stdout)) {
        Ok(Ok(chains)) => chains,
        _ => return findings.add("host-firewall", Verdict::Warning, "nft does not list chains", "Install nftables."),
    };
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let mut found = false;
    for chain in chains["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]) {
        let (table, hook) = (text(chain, "table"), text(chain, "hook"));
        let others = table != own && !table.starts_with(&format!("{own}_"));
        if !others || text(chain, "policy") != "drop" || !matches!(hook.as_str(), "forward" | "input") {
            continue;
        }
        found = true;
        let detail = format!(
            "chain {} of table {} {table} drops what it does not accept ({hook})",
            text(chain, "name"),
            text(chain, "family")
        );
        let hint = match hook.as_str() {
            "forward" => {
                "Accept forwarding to and from the bridges (pier-*) there: no other table can overrule a drop."
            }
            _ => "Accept ports 53/udp and 53/tcp from the bridges (pier-*) there, for names.",
        };
        findings.add("host-firewall", Verdict::Warning, detail, hint);
    }
    if !found {
        findings.add("host-firewall", Verdict::Ok, "no other table drops forwarded or incoming packets by policy", "");
    }
}
