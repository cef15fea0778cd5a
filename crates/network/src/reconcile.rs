//! Makes the kernel agree with the records: after a crash, a firewall flush, a removed link, a reboot.

use std::collections::BTreeSet;

use sys::netns::Netns;

use crate::driver;
use crate::endpoints;
use crate::error::{Error, Result};
use crate::ipsec;
use crate::kernel::Kernel;
use crate::model::{Endpoint, EndpointState, Network};
use crate::netlink::Link;
use crate::networks::Networks;
use crate::plan::{self, Change};
use crate::ports::holder::Holder;
use crate::store::{EndpointFilter, StoredEndpoint, StoredNetwork};
use crate::tunnel;

impl Networks {
    /// Finishes or undoes what was half done, drops endpoints whose namespace is gone, makes missing links again and
    /// writes the firewall's table. Says what it mended.
    ///
    /// # Errors
    /// The records cannot be read, or the lock not taken. What a single network or endpoint refuses is logged and
    /// reported, and the others go on.
    pub fn reconcile(&self) -> Result<Vec<String>> {
        let mut mended = Vec::new();
        let (ids, warnings) = self.detach_foreign(&EndpointFilter::default(), true)?;
        mended.extend(ids.into_iter().map(|id| format!("endpoint {id}: was dead; dropped")));
        mended.extend(warnings);
        self.pay();
        let _lock = self.lock()?;
        let mut kernel = Kernel::open(&self.firewall)?;
        for stored in self.store.endpoints(&EndpointFilter::default())? {
            let id = stored.endpoint.id.clone();
            if stored.state != EndpointState::Ready && self.is_busy(&id) {
                continue;
            }
            match self.drop_if_dead(&mut kernel, &stored) {
                Ok(None) => {}
                Ok(Some(why)) => mended.push(format!("endpoint {id} of {}: {why}", stored.endpoint.owner)),
                Err(error) => tracing::error!(endpoint = id, %error, "cannot be reconciled"),
            }
        }
        for stored in self.store.networks()?.0 {
            match self.mend_network(&mut kernel, &stored) {
                Ok(lines) => mended.extend(lines),
                Err(error) => tracing::error!(network = stored.network.name, %error, "cannot be reconciled"),
            }
        }
        let rules = self.rules()?;
        mended.extend(self.firewall.missing(&rules)?.into_iter().map(|line| format!("{line}; written again")));
        self.write_firewall(&rules)?;
        mended.extend(self.hold_all_ports());
        mended.extend(self.sweep_namespaces()?);
        if !mended.is_empty() {
            self.store.record_event("reconcile", "", &[("mended", &mended.join("\n"))]);
        }
        Ok(mended)
    }

    /// Writes the rules again when some are missing, or, `damaged`, in any case. Returns whether it did.
    ///
    /// # Errors
    /// [`Error::Firewall`].
    pub fn reassert_firewall(&self, damaged: bool) -> Result<bool> {
        let _lock = self.lock()?;
        let rules = self.rules()?;
        if rules.is_empty() || (!damaged && self.firewall.missing(&rules)?.is_empty()) {
            return Ok(false);
        }
        self.write_firewall(&rules)?;
        // What came meanwhile was taken for the host's own, and UDP has no end to it.
        for endpoint in self.endpoints(&EndpointFilter::default())? {
            endpoints::forget_flows(&endpoint.ports);
        }
        Ok(true)
    }

    /// Takes everything off the host if nothing is attached anywhere: bridges, then the table. They are made again
    /// when somebody attaches.
    ///
    /// # Errors
    /// The first thing the kernel refused.
    pub fn rest(&self) -> Result<()> {
        let _lock = self.lock()?;
        if !self.store.endpoints(&EndpointFilter::default())?.is_empty() {
            return Ok(());
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        for stored in self.store.networks()?.0 {
            self.take_down(&mut kernel, &stored)?;
        }
        Ok(())
    }

    /// Makes the holder hold what the records say: it may have been killed. A port that somebody else took meanwhile
    /// stays published, and is named.
    fn hold_all_ports(&self) -> Vec<String> {
        let Some(holder) = Holder::of(&self.config) else { return Vec::new() };
        let held = match self.endpoints(&EndpointFilter::default()) {
            Ok(endpoints) => endpoints.into_iter().filter(|endpoint| !endpoint.ports.is_empty()),
            Err(_) => return Vec::new(),
        };
        // A driver of others publishes by its own means, and a runtime that speaks CNI may hold ports itself.
        let ours = |endpoint: &Endpoint| !self.is_foreign(&endpoint.network_id) && !endpoint.owner.starts_with("cni:");
        let held = held.filter(ours);
        let held = held.map(|endpoint| (endpoint.id, endpoint.ports)).collect();
        match holder.keep(held) {
            Ok(lost) => {
                lost.into_iter().map(|(port, _)| format!("port {port}: a program of the host has it too")).collect()
            }
            Err(error) => {
                tracing::error!(%error, "published ports are not held");
                Vec::new()
            }
        }
    }

    fn is_foreign(&self, network: &str) -> bool {
        self.store.find_network(network).is_ok_and(|stored| stored.network.driver.is_foreign())
    }

    /// Says how the kernel differs from the records, one line each, and changes nothing. What an operation that is
    /// under way has half done counts as a difference: it is waited for.
    ///
    /// # Errors
    /// As [`Networks::reconcile`].
    pub fn check(&self) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut kernel = Kernel::open(&self.firewall)?;
        let mut differences = Vec::new();
        let stored = self.store.endpoints(&EndpointFilter::default())?;
        let links = kernel.host.links().map_err(Error::kernel("list the host's links"))?;
        let link = |name: &str| links.iter().find(|link| link.name == name);
        let (networks, damaged) = self.store.networks()?;
        differences.extend(damaged.into_iter().map(|id| format!("network {id}: its record is damaged")));
        for stored in &stored {
            let endpoint = &stored.endpoint;
            let bridge =
                networks.iter().find(|n| n.network.id == endpoint.network_id).map(|n| n.network.bridge.as_str());
            let bridge = bridge.filter(|name| !name.is_empty()).and_then(link).map(|bridge| bridge.index);
            let name = &endpoint.host_interface;
            let what = match (death(stored), link(name)) {
                (Some((state, _)), _) => state.to_owned(),
                (None, None) if !name.is_empty() && !self.is_foreign(&endpoint.network_id) => {
                    format!("link {name} is gone")
                }
                (None, Some(found)) if bridge.is_some() && found.controller != bridge => {
                    format!("link {name} is off its bridge")
                }
                _ => continue,
            };
            differences.push(format!("endpoint {} of {}: {what}", endpoint.id, endpoint.owner));
        }
        for stored_network in &networks {
            let network = &stored_network.network;
            let endpoints = stored.iter().map(|stored| &stored.endpoint).filter(|e| e.network_id == network.id);
            let known: BTreeSet<&str> = endpoints.map(|endpoint| endpoint.host_interface.as_str()).collect();
            if stored_network.removing {
                differences.push(format!("network {:?}: half removed", network.name));
            }
            if !network.driver.has_bridge() || !network.is_managed() || !stored_network.up {
                continue;
            }
            match link(&network.bridge) {
                None if known.is_empty() => {}
                None => differences.push(format!("network {:?}: bridge {} is gone", network.name, network.bridge)),
                Some(bridge) => differences
                    .extend(strays(&links, bridge.index, &known).map(|name| format!("link {name}: nobody's"))),
            }
            differences.extend(unencrypted(network));
            if let Some((what, _)) = tunnel::fault(&mut kernel, network)? {
                differences.push(format!("network {:?}: {what}", network.name));
            }
        }
        differences.extend(self.firewall.missing(&self.rules()?)?);
        Ok(differences)
    }

    fn drop_if_dead(&self, kernel: &mut Kernel<'_>, stored: &StoredEndpoint) -> Result<Option<&'static str>> {
        let endpoint = &stored.endpoint;
        if self.is_foreign(&endpoint.network_id) {
            return Ok(None);
        }
        let Some((_, why)) = death(stored) else { return Ok(None) };
        for warning in self.detach_one(kernel, endpoint)? {
            tracing::warn!(endpoint = endpoint.id, warning, "dropped, but something stays");
        }
        Ok(Some(why))
    }

    fn mend_network(&self, kernel: &mut Kernel<'_>, stored: &StoredNetwork) -> Result<Vec<String>> {
        let network = &stored.network;
        if stored.removing {
            self.remove_empty(kernel, stored)?;
            return Ok(vec![format!("network {:?}: was half removed; finished", network.name)]);
        }
        if !network.driver.has_links() || network.driver.is_foreign() || !stored.up {
            return Ok(Vec::new());
        }
        let filter = EndpointFilter { network: Some(network.id.clone()), ..EndpointFilter::default() };
        let endpoints: Vec<Endpoint> = self.store.endpoints(&filter)?.into_iter().map(|s| s.endpoint).collect();
        let view = kernel.view(network)?;
        let mut mended = Vec::new();
        if view.bridge_mtu.is_none() && network.driver.has_bridge() {
            if endpoints.is_empty() {
                if let Some(ipsec) = driver::encryption(network) {
                    ipsec::settle(&ipsec, None)?;
                }
                self.store.set_up(&network.id, false)?;
                return Ok(mended);
            }
            kernel.apply(&without_firewall(plan::network(network, &view)), None, &|| self.rules())?;
            mended.push(format!("network {:?}: bridge {} was gone; made again", network.name, network.bridge));
        }
        mended.extend(encrypt_again(network));
        if let Some((what, changes)) = tunnel::fault(kernel, network)? {
            kernel.apply(&changes, None, &|| self.rules())?;
            mended.push(format!("network {:?}: {what}; mended", network.name));
        }
        for endpoint in &endpoints {
            mended.extend(self.mend_endpoint(kernel, network, endpoint)?);
        }
        if network.driver.has_bridge() && network.is_managed() {
            mended.extend(remove_strays(kernel, network, &endpoints)?);
        }
        Ok(mended)
    }

    fn mend_endpoint(&self, kernel: &mut Kernel<'_>, network: &Network, endpoint: &Endpoint) -> Result<Option<String>> {
        let link = endpoint.link();
        let step = || Error::kernel(format!("look at link {link}"));
        let open = |_| Error::invalid(endpoint.netns_path.display().to_string(), "not a network namespace");
        let netns = Netns::open(&endpoint.netns_path).map_err(open)?;
        let what = if !kernel.is_wired(endpoint, Some(&netns))? {
            let view = kernel.view(network)?;
            let changes = without_firewall(plan::attach(network, endpoint, &view));
            kernel.apply(&changes, Some(&netns), &|| self.rules())?;
            "was gone; made again"
        } else if network.driver.has_bridge() {
            let bridge = kernel.host.link(&network.bridge).map_err(step())?.map(|bridge| bridge.index);
            if kernel.host.link(link).map_err(step())?.is_some_and(|found| found.controller == bridge) {
                return Ok(None);
            }
            let hairpin = kernel.view(network)?.bridge_filter;
            let join = Change::Join { link: link.to_owned(), bridge: network.bridge.clone(), hairpin };
            kernel.apply(&[join], None, &|| self.rules())?;
            "was off its bridge; put back"
        } else {
            return Ok(None);
        };
        Ok(Some(format!("endpoint {} of {}: link {link} {what}", endpoint.id, endpoint.owner)))
    }
}

/// Why an endpoint cannot stay, and what is done with it.
fn death(stored: &StoredEndpoint) -> Option<(&'static str, &'static str)> {
    let endpoint = &stored.endpoint;
    match stored.state {
        EndpointState::Attaching => Some(("half attached", "was half attached; undone")),
        EndpointState::Detaching => Some(("half detached", "was half detached; finished")),
        EndpointState::Ready if endpoint.netns_path.as_os_str().is_empty() => None,
        EndpointState::Ready => match Netns::open(&endpoint.netns_path) {
            Err(_) => Some(("its namespace is gone", "its namespace is gone; dropped")),
            Ok(netns) if netns.inode() != endpoint.netns_inode => {
                Some(("another namespace is in its place", "another namespace is in its place; dropped"))
            }
            Ok(_) => None,
        },
    }
}

/// Names of veth ends of ours on a bridge that no record knows.
fn strays<'a>(links: &'a [Link], bridge: u32, known: &'a BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
    let ours = |link: &&Link| link.name.len() == 14 && link.name.starts_with("pv");
    let names = links.iter().filter(move |link| link.controller == Some(bridge)).filter(ours);
    names.map(|link| link.name.as_str()).filter(|name| !known.contains(name))
}

/// Reconciling writes the whole table once, at its end.
fn without_firewall(mut changes: Vec<Change>) -> Vec<Change> {
    changes.retain(|change| !matches!(change, Change::Elements(_) | Change::Table));
    changes
}

/// Makes the kernel's IPsec of an encrypted network what the records and the key file want. When the
/// file cannot be read, the network's endpoints are mended all the same.
fn encrypt_again(network: &Network) -> Vec<String> {
    match driver::encryption(network).map(|ipsec| ipsec::settle(&ipsec, Some(&network.peers))) {
        None => Vec::new(),
        Some(Ok(steps)) => {
            steps.iter().map(|step| format!("network {:?}: {}; mended", network.name, step.fault())).collect()
        }
        Some(Err(error)) => {
            tracing::error!(network = network.name, %error, "its encryption cannot be mended");
            Vec::new()
        }
    }
}

/// How the kernel's IPsec of an encrypted network differs from the records and the key file.
fn unencrypted(network: &Network) -> Vec<String> {
    let named = |what: &dyn std::fmt::Display| format!("network {:?}: {what}", network.name);
    match driver::encryption(network).map(|ipsec| ipsec::differences(&ipsec, &network.peers)) {
        None => Vec::new(),
        Some(Ok(steps)) => steps.iter().map(|step| named(&step.fault())).collect(),
        Some(Err(error)) => vec![named(&error)],
    }
}

/// Removes veth ends of ours on the bridge that no record knows.
fn remove_strays(kernel: &mut Kernel<'_>, network: &Network, endpoints: &[Endpoint]) -> Result<Vec<String>> {
    let step = || Error::kernel(format!("look for strays on {}", network.bridge));
    let links = kernel.host.links().map_err(step())?;
    let Some(bridge) = links.iter().find(|link| link.name == network.bridge).map(|link| link.index) else {
        return Ok(Vec::new());
    };
    let known: BTreeSet<&str> = endpoints.iter().map(|endpoint| endpoint.host_interface.as_str()).collect();
    let mut mended = Vec::new();
    for name in strays(&links, bridge, &known) {
        kernel.host.delete_link(name).map_err(step())?;
        mended.push(format!("link {name}: nobody's; removed"));
    }
    Ok(mended)
}
