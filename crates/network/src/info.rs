//! By what means a stack works on this host.

use crate::networks::Networks;

/// What [`Networks::info`] says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Info {
    /// The firewall's backend; empty: the host has none.
    pub firewall: String,
    /// Name of the nftables tables, and, in capitals, of the iptables chains.
    pub firewall_table: String,
    /// What this firewall cannot do on this host, and what helps, one line each.
    pub firewall_lacks: Vec<String>,
}

impl Networks {
    /// By what means this stack works.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            firewall: self.firewall.backend().map(|backend| backend.to_string()).unwrap_or_default(),
            firewall_table: self.firewall.table().to_owned(),
            firewall_lacks: self.firewall.lacks(),
        }
    }
}
