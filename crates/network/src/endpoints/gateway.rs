//! Which of a namespace's endpoints is its default route: of those with the highest priority, the oldest.

use std::net::IpAddr;

use sys::netns::Netns;

use crate::driver;
use crate::error::Result;
use crate::kernel::{InsideView, apply_inside};
use crate::model::{Endpoint, EndpointState, Network};
use crate::networks::Networks;
use crate::plan::Change;
use crate::store::EndpointFilter;

/// The gateways that a new endpoint may have: those of each family that has no default route yet, or whose holder has a lower
/// priority. With a metric of its own an endpoint has them beside the others.
pub(super) fn choose(network: &Network, new: &Endpoint, inside: &InsideView, neighbours: &[Endpoint]) -> Vec<IpAddr> {
    if network.internal || new.no_default_route {
        return Vec::new();
    }
    let free = |gateway: &IpAddr| {
        let same = |other: &IpAddr| other.is_ipv4() == gateway.is_ipv4();
        let held = neighbours.iter().filter(|other| other.gateways.iter().any(same));
        let first = held.map(|other| other.gateway_priority).max().unwrap_or(0);
        let taken = if gateway.is_ipv4() { inside.default4 } else { inside.default6 };
        !taken || new.metric.is_some() || new.gateway_priority > first
    };
    network.subnets.iter().map(|subnet| subnet.gateway).filter(free).collect()
}

impl Networks {
    /// The other whole endpoints of a namespace, the oldest first.
    pub(super) fn neighbours(&self, endpoint: &Endpoint) -> Result<Vec<Endpoint>> {
        let netns = Some(endpoint.netns_path.to_string_lossy().into_owned());
        let all = self.store.endpoints(&EndpointFilter { netns, ..EndpointFilter::default() })?;
        let there = all.into_iter().filter(|stored| {
            stored.state == EndpointState::Ready
                && stored.endpoint.netns_inode == endpoint.netns_inode
                && stored.endpoint.id != endpoint.id
        });
        Ok(there.map(|stored| stored.endpoint).collect())
    }

    /// A new endpoint has taken the default route: whoever had it, of the same metric, has it no more.
    pub(super) fn give_way(&self, endpoint: &Endpoint) {
        for mut other in self.neighbours(endpoint).unwrap_or_default() {
            let before = other.gateways.len();
            let taken = |ip: &IpAddr| endpoint.gateways.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
            other.gateways.retain(|ip| endpoint.metric != other.metric || !taken(ip));
            if other.gateways.len() != before
                && let Err(error) = self.store.update_endpoint(&other)
            {
                tracing::warn!(endpoint = other.id, %error, "its lost default route cannot be recorded");
            }
        }
    }

    /// The default routes of an endpoint that is gone pass to the next one. What fails is logged: the endpoint is gone
    /// all the same.
    pub(super) fn inherit_gateways(&self, gone: &Endpoint, netns: &Netns) {
        if gone.gateways.is_empty() {
            return;
        }
        if let Err(error) = self.hand_down(gone, netns) {
            tracing::warn!(endpoint = gone.id, %error, "no other endpoint takes over the default route");
        }
    }

    fn hand_down(&self, gone: &Endpoint, netns: &Netns) -> Result<()> {
        let mut heirs = self.neighbours(gone)?;
        heirs.retain(|heir| !heir.no_default_route);
        // Stable: the oldest of the highest.
        heirs.sort_by_key(|heir| std::cmp::Reverse(heir.gateway_priority));
        for family in gone.gateways.iter().map(IpAddr::is_ipv4) {
            if heirs.iter().any(|heir| heir.gateways.iter().any(|ip| ip.is_ipv4() == family)) {
                continue;
            }
            for heir in &mut heirs {
                let network = self.store.find_network(&heir.network_id)?.network;
                let gateway = network.gateways_of(&heir.addresses).into_iter().find(|ip| ip.is_ipv4() == family);
                let Some(gateway) = gateway.filter(|_| !network.internal) else { continue };
                heir.gateways.push(gateway);
                let mine = |change: &Change| matches!(change, Change::DefaultRoute { .. });
                let changes: Vec<Change> = driver::routes(heir).into_iter().filter(mine).collect();
                apply_inside(&changes, Some(netns))?;
                self.store.update_endpoint(heir)?;
                break;
            }
        }
        Ok(())
    }
}
