//! Policies: which endpoints may talk to which, chosen by labels.
//!
//! The first policy, by its order of making, whose `from` fits the caller, `to` the called and `ports` the port,
//! decides: `deny` refuses, `allow` leaves it to the networks (so it is an exception to a later `deny`, and opens no
//! way that isolation closes). Without one nothing changes. Established connections go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Endpoint, Protocol};
use crate::networks::Networks;

/// Labels that all have to be there; an empty value fits any. No labels: everybody.
pub type Selector = BTreeMap<String, String>;

/// A policy, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Unique.
    pub name: String,
    /// Refuses; else leaves it to the networks.
    pub deny: bool,
    /// Who calls.
    pub from: Selector,
    /// Who is called.
    pub to: Selector,
    /// At which ports, in the endpoint; none: all traffic.
    pub ports: Vec<PolicyPorts>,
}

/// Ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPorts {
    /// Transport protocol.
    pub protocol: Protocol,
    /// At least 1.
    pub first: u16,
    /// At least `first`.
    pub last: u16,
}

/// `80`, `53/udp`, `8000-8099/tcp`.
impl std::str::FromStr for PolicyPorts {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let port: crate::model::PortMapping = text.parse()?;
        if port.host_ip.is_some() || text.contains(':') {
            return Err(Error::invalid(format!("port {text:?}"), "PORT[-LAST][/tcp|udp|sctp] is needed"));
        }
        let last = port.container_port.saturating_add(port.range.saturating_sub(1));
        Ok(Self { protocol: port.protocol, first: port.container_port, last })
    }
}

impl Networks {
    /// Makes a policy. It holds at once, for those who are attached and for those who come.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::PolicyExists`], [`Error::Firewall`]: then it is not made.
    pub fn create_policy(&self, policy: Policy) -> Result<Policy> {
        if !oci::name::is_valid(&policy.name) {
            let what = format!("policy name {:?}", policy.name);
            return Err(Error::invalid(what, "allowed is [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
        }
        if policy.ports.iter().any(|ports| ports.first == 0 || ports.last < ports.first) {
            return Err(Error::invalid(format!("policy {:?}", policy.name), "ports are 1 to 65535, a range ascends"));
        }
        let _lock = self.lock()?;
        self.store.insert_policy(&policy)?;
        if let Err(error) = self.rewrite_firewall() {
            self.store.delete_policy(&policy.name)?;
            return Err(error);
        }
        Ok(policy)
    }

    /// Policies in their order.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn policies(&self) -> Result<Vec<Policy>> {
        self.store.policies()
    }

    /// Removes a policy; `force`: fine with a missing one.
    ///
    /// # Errors
    /// [`Error::PolicyNotFound`].
    pub fn remove_policy(&self, name: &str, force: bool) -> Result<()> {
        let _lock = self.lock()?;
        if !self.store.delete_policy(name)? && !force {
            return Err(Error::PolicyNotFound { name: name.to_owned() });
        }
        self.rewrite_firewall()
    }
}

/// A policy with the addresses of today's endpoints, for one family each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) deny: bool,
    pub(crate) from: [Vec<String>; 2],
    pub(crate) to: [Vec<String>; 2],
    pub(crate) ports: Vec<PolicyPorts>,
}

/// What the firewall needs of policies; those that fit nobody are left out.
pub(crate) fn compile(policies: &[Policy], endpoints: &[Endpoint]) -> Vec<Compiled> {
    let family = |selector: &Selector, ipv6: bool| {
        let chosen = endpoints.iter().filter(|endpoint| fits(selector, endpoint));
        let addresses = chosen.flat_map(|endpoint| &endpoint.addresses).map(ipnet::IpNet::addr);
        addresses.filter(|ip| ip.is_ipv6() == ipv6).map(|ip| ip.to_string()).collect::<Vec<String>>()
    };
    let both = |selector: &Selector| [family(selector, false), family(selector, true)];
    let compiled = policies.iter().map(|policy| Compiled {
        deny: policy.deny,
        from: both(&policy.from),
        to: both(&policy.to),
        ports: policy.ports.clone(),
    });
    compiled.filter(|one| (0..2).any(|family| !one.from[family].is_empty() && !one.to[family].is_empty())).collect()
}

fn fits(selector: &Selector, endpoint: &Endpoint) -> bool {
    selector.iter().all(|(key, value)| endpoint.labels.get(key).is_some_and(|is| value.is_empty() || is == value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_choose_addresses() {
        let endpoint = |address: &str, labels: &[(&str, &str)]| Endpoint {
            addresses: vec![address.parse().unwrap()],
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Endpoint::default()
        };
        let endpoints = [endpoint("10.1.0.2/24", &[("app", "web")]), endpoint("10.1.0.3/24", &[("app", "db")])];
        let policy = |from: &str, to: &str| Policy {
            name: "p".into(),
            deny: true,
            from: [("app".to_owned(), from.to_owned())].into(),
            to: [("app".to_owned(), to.to_owned())].into(),
            ports: vec!["5432".parse().unwrap()],
        };
        let compiled = compile(&[policy("web", "db"), policy("web", "nobody"), policy("", "db")], &endpoints);
        assert_eq!(compiled.len(), 2);
        assert_eq!(
            (&compiled[0].from[0], &compiled[0].to[0]),
            (&vec!["10.1.0.2".to_owned()], &vec!["10.1.0.3".to_owned()])
        );
        assert_eq!(compiled[1].from[0].len(), 2);
        assert!("80:80".parse::<PolicyPorts>().is_err() && "0".parse::<PolicyPorts>().is_err());
    }
}
