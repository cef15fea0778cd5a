//! Explains why a name, a port or a route does not work: looks, in the order a packet goes, and changes nothing.

mod inside;
mod rules;

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use sys::netns::Netns;

use crate::error::{Error, Result};
use crate::firewall::{Backend, probe};
use crate::kernel::read_sysctl;
use crate::model::{Endpoint, Network};
use crate::netlink::Netlink;
use crate::networks::Networks;
use crate::store::EndpointFilter;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// An endpoint's id, an owner, or the path of a namespace.
    pub target: String,
    /// A name that should be found from inside; empty: one that needs any upstream.
    pub name: String,
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It may be meant so.
    Warning,
    /// This is why.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// One look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Id of the endpoint it is about.
    pub endpoint: String,
    /// What was looked at: namespace, link, address, route, bridge, gateway, resolver, upstream, forwarding, rules,
    /// port, host-firewall.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What helps; empty when nothing is needed.
    pub hint: String,
}

/// Collects findings about one endpoint.
struct Findings {
    endpoint: String,
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, check: &str, verdict: Verdict, detail: impl Into<String>, hint: &str) {
        let (endpoint, check) = (self.endpoint.clone(), check.to_owned());
        let hint = if verdict == Verdict::Ok { String::new() } else { hint.to_owned() };
        self.list.push(Finding { endpoint, check, verdict, detail: detail.into(), hint });
    }

    /// `Ok` or this.
    fn is(&mut self, check: &str, good: bool, bad: Verdict, detail: impl Into<String>, hint: &str) -> bool {
        self.add(check, if good { Verdict::Ok } else { bad }, detail, hint);
        good
    }
}

impl Networks {
    /// Looks at every endpoint of the target, in the order a packet goes.
    ///
    /// # Errors
    /// [`Error::EndpointNotFound`] when the target has none, [`Error::Kernel`].
    pub fn diagnose(&self, question: &Question) -> Result<Vec<Finding>> {
        let target = &question.target;
        let fits = |e: &Endpoint| {
            e.id.starts_with(target)
                || e.owner == *target
                || e.netns_path.as_os_str() == target.as_str()
                || e.names.contains(target)
        };
        let endpoints: Vec<Endpoint> =
            self.endpoints(&EndpointFilter::default())?.into_iter().filter(|e| !target.is_empty() && fits(e)).collect();
        if endpoints.is_empty() {
            return Err(Error::EndpointNotFound { id: target.clone() });
        }
        let mut all = Vec::new();
        for endpoint in &endpoints {
            let mut findings = Findings { endpoint: endpoint.id.clone(), list: Vec::new() };
            let network = self.store.find_network(&endpoint.network_id)?.network;
            self.look(&mut findings, &network, endpoint, &question.name)?;
            all.extend(findings.list);
        }
        Ok(all)
    }

    fn look(&self, findings: &mut Findings, network: &Network, endpoint: &Endpoint, name: &str) -> Result<()> {
        if endpoint.host_interface.is_empty() {
            findings.add("link", Verdict::Ok, format!("network {:?} makes no link", network.name), "");
            return Ok(());
        }
        let netns = Netns::open(&endpoint.netns_path).ok().filter(|netns| netns.inode() == endpoint.netns_inode);
        let place = endpoint.netns_path.display();
        let hint = "Detach and attach again; `pier-network reconcile` drops what is left.";
        let Some(netns) = netns else {
            findings.add("namespace", Verdict::Failed, format!("{place} is gone or another one"), hint);
            return Ok(());
        };
        findings.add("namespace", Verdict::Ok, place.to_string(), "");
        inside::look(findings, network, endpoint, &netns, name)?;
        host(findings, network)?;
        let (missing, backend, table) =
            (self.firewall.missing(&self.rules()?)?, self.firewall.backend()?, self.firewall.table());
        let detail = match missing.first() {
            None => format!("{backend}, table {table}"),
            Some(first) => format!("{backend}, table {table}: {first}"),
        };
        findings.is("rules", missing.is_empty(), Verdict::Failed, detail, "`pier-network reconcile` writes it again.");
        for line in self.firewall.lacks() {
            findings.add("rules", Verdict::Warning, format!("{backend} lacks {line}"), "Or install nftables.");
        }
        if backend != Backend::Nft {
            return Ok(());
        }
        let guard =
            probe::table_exists("inet", &format!("{table}_guard")).map_err(Error::kernel("look for the guard"))?;
        let why = "Is the keeper running, and the kernel 5.12 or newer? Its log is keeper.log in the run directory.";
        findings.is("guard", guard, Verdict::Warning, format!("nftables table {table}_guard"), why);
        rules::look(findings, table);
        Ok(())
    }
}

fn host(findings: &mut Findings, network: &Network) -> Result<()> {
    let step = || Error::kernel(format!("look at link {}", network.bridge));
    let mut netlink = Netlink::open().map_err(step())?;
    let bridge = netlink.link(&network.bridge).map_err(step())?;
    let addresses = match &bridge {
        Some(bridge) => netlink.addresses(bridge.index).map_err(step())?,
        None => Vec::new(),
    };
    // Somebody else's bridge has the addresses that its owner gave it.
    let subnets = network.subnets.iter().filter(|_| network.is_managed());
    let gateways: Vec<IpAddr> = subnets.map(|subnet| subnet.gateway).collect();
    let whole =
        bridge.is_some_and(|bridge| bridge.up) && gateways.iter().all(|ip| addresses.iter().any(|a| a.addr() == *ip));
    let detail = format!("{} up with {gateways:?}", network.bridge);
    findings.is("bridge", whole, Verdict::Failed, detail, "`pier-network reconcile` makes it again.");
    if !network.internal {
        let on = |key: &str| read_sysctl(key).is_some_and(|value| value != "0");
        let four = !gateways.iter().any(IpAddr::is_ipv4) || on("ipv4/ip_forward");
        findings.is("forwarding", four, Verdict::Failed, "net.ipv4.ip_forward", "sysctl -w net.ipv4.ip_forward=1");
    }
    Ok(())
}
