//! The firewall as iptables: chains of our own in the tables raw, nat and filter, for hosts without nft.
//!
//! All chains are written anew with each change, by `iptables-restore --noflush`: one transaction for each table, no
//! chain of others is touched. Where nft has sets, here are rules, one for each element.
//!
//! | chain | called from |
//! |---|---|
//! | `<NAME>-GUARD` | raw PREROUTING, first |
//! | `<NAME>-PUBLISH` | nat PREROUTING and OUTPUT, first, for addresses of the host |
//! | `<NAME>-MASQ` | nat POSTROUTING, first |
//! | `<NAME>-DENY` | filter FORWARD, first: it only denies |
//! | `<NAME>-FIRST` | nat PREROUTING, for copies, and OUTPUT; only with host-first networks |
//! | `<NAME>-INPUT` | security INPUT, first: it admits what is published host-first; only with such networks |
//! | `<NAME>-ALLOW` | filter FORWARD, last: the host's own rules have come before, only the chain's policy is left |
//!
//! What nft can do and this cannot: policies on one bridge, unless its packets pass iptables
//! (`net.bridge.bridge-nf-call-iptables=1`, else [`Error::FirewallLacks`]); networks in a VRF, whose packets come by its
//! link (likewise); hold the doors shut in the moments between somebody's
//! flush and the next writing.

use std::process::{Command, Stdio};

mod first;
mod policies;
mod rules;
mod script;
mod translation;

use super::{Elements, pair, program};
use crate::error::{Error, Result};
use crate::kernel::read_sysctl;
use rules::Family;

/// Seconds that a program waits while another one holds iptables' lock.
const PATIENCE: &str = "5";

/// What is not possible while bridged packets pass iptables by, and what helps.
const POLICIES: [&str; 2] = [
    "policies while net.bridge.bridge-nf-call-iptables and -ip6tables are not 1",
    "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
];

/// Whether packets that one bridge switches pass iptables.
fn sees_bridged() -> bool {
    let passes = |key| read_sysctl(key).is_some_and(|value| value != "0");
    passes("bridge/bridge-nf-call-iptables") && passes("bridge/bridge-nf-call-ip6tables")
}

/// What cannot be done on this host, with what helps.
pub(super) fn lacks() -> Option<String> {
    (!sees_bridged()).then(|| POLICIES.join(": "))
}

/// Which of a host's iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// What the host calls `iptables`.
    AsInstalled,
    /// `iptables-nft`: rules in nf_tables.
    Nft,
    /// `iptables-legacy`: rules in the kernel's own tables.
    Legacy,
}

impl Variant {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::AsInstalled => "",
            Self::Nft => "-nft",
            Self::Legacy => "-legacy",
        }
    }

    /// What the host calls `iptables` and `ip6tables` at the moment: `Nft` or `Legacy`. Each may be another one tomorrow
    /// (update-alternatives(1)).
    pub(super) fn installed() -> [Self; 2] {
        ["iptables", "ip6tables"].map(|program| {
            let said = Command::new(program).arg("-V").stderr(Stdio::null()).output();
            let legacy = said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("legacy"));
            if legacy { Self::Legacy } else { Self::Nft }
        })
    }

    /// Whether some of its rules lie in the kernel's own tables, whose changes nobody is told of.
    pub(super) fn is_legacy(self) -> bool {
        match self {
            Self::AsInstalled => Self::installed().contains(&Self::Legacy),
            one => one == Self::Legacy,
        }
    }
}

/// The chains of one stack.
pub(super) struct Iptables {
    name: String,
    variant: Variant,
}

impl Iptables {
    pub(super) fn new(table: &str, variant: Variant) -> Self {
        Self { name: table.to_uppercase(), variant }
    }

    pub(super) fn missing(&self, elements: &Elements) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        for family in self.families(elements) {
            let wanted = rules::tables(&self.name, elements, family);
            differences.extend(script::differences(&self.save(family)?, &wanted, family));
        }
        Ok(differences)
    }

    pub(super) fn rebuild(&self, elements: &Elements) -> Result<()> {
        self.can(elements)?;
        if elements.host_first() {
            pair::make_links(&self.name.to_lowercase())
                .map_err(Error::kernel("make the links of host-first publishing"))?;
        }
        for family in self.families(elements) {
            let wanted = rules::tables(&self.name, elements, family);
            self.restore(family, &script::write(&self.save(family)?, &self.name, &wanted))?;
        }
        if elements.host_first() { Ok(()) } else { self.remove_links() }
    }

    fn remove_links(&self) -> Result<()> {
        pair::remove_links(&self.name.to_lowercase())
            .map_err(Error::kernel("remove the links of host-first publishing"))
    }

    pub(super) fn clear(&self) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            // A host without IPv6 has no tables of it, and one whose program is gone has nobody to ask.
            let Ok(saved) = self.save(family) else { continue };
            self.restore(family, &script::write(&saved, &self.name, &[]))?;
        }
        self.remove_links()
    }

    /// IPv6 is left out on a host that cannot filter it, unless it is needed.
    fn families(&self, elements: &Elements) -> Vec<Family> {
        let both = elements.has_ipv6() || self.save(Family::V6).is_ok();
        if both { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
    }

    /// Whether all of it can be said here.
    fn can(&self, elements: &Elements) -> Result<()> {
        let lacks =
            |what: &str| Err(Error::FirewallLacks { backend: self.program(Family::V4, ""), what: what.to_owned() });
        if elements.links().any(|link| link.ends_with('+')) {
            return lacks("links whose names end with +");
        }
        if elements.in_vrf() {
            return lacks("networks in a VRF");
        }
        match POLICIES {
            [what, _] if !elements.compiled().is_empty() && !sees_bridged() => lacks(what),
            _ => Ok(()),
        }
    }

    fn program(&self, family: Family, verb: &str) -> String {
        let digit = if family == Family::V6 { "6" } else { "" };
        format!("ip{digit}tables{}{verb}", self.variant.suffix())
    }

    fn save(&self, family: Family) -> Result<String> {
        let program = self.program(family, "-save");
        program::run(&program, &[], "", &program)
    }

    fn restore(&self, family: Family, script: &str) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        let program = self.program(family, "-restore");
        program::run(&program, &["--noflush", "-w", PATIENCE], script, &program).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{Driver, Network};

    #[test]
    fn what_rules_cannot_say_is_named() {
        let refusal = |bridge: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let network = Network { driver: Driver::Bridge, bridge: bridge.into(), options, ..Network::default() };
            let can = Iptables::new("t", Variant::AsInstalled).can(&Elements::default().network(&network));
            can.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(refusal("br0", &[("vrf", "blue")]).contains("networks in a VRF"));
        assert!(refusal("br+", &[]).contains("end with +"));
        assert_eq!(refusal("br0", &[]), "");
    }
}
