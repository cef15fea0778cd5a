//! What went over an endpoint's link, as the kernel counts it.

use serde::Serialize;
use sys::netns::Netns;

use crate::error::{Error, Result};
use crate::model::Endpoint;
use crate::netlink::{Counters, Netlink};
use crate::networks::Networks;
use crate::store::EndpointFilter;

/// Counters of one endpoint, as it sees itself: `rx` is what came to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Of the endpoint.
    pub endpoint_id: String,
    /// Of its network.
    pub network_name: String,
    /// Who it is for.
    pub owner: String,
    /// Link inside.
    pub interface: String,
    /// The counters.
    #[serde(flatten)]
    pub counters: Counters,
}

impl Networks {
    /// Counters of endpoints that have a link. One whose link is gone is left out: `check` names it.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Kernel`].
    pub fn statistics(&self, filter: &EndpointFilter) -> Result<Vec<Statistics>> {
        let step = || Error::kernel("read the counters of links");
        let host = Netlink::open().and_then(|mut netlink| netlink.counters()).map_err(step())?;
        let mut all = Vec::new();
        for endpoint in self.endpoints(filter)? {
            // The host's end sees it the other way round.
            let counters = match host.get(&endpoint.host_interface) {
                Some(counters) => Some(counters.turned()),
                None => inside(&endpoint),
            };
            all.extend(counters.map(|counters| Statistics {
                endpoint_id: endpoint.id,
                network_name: endpoint.network_name,
                owner: endpoint.owner,
                interface: endpoint.interface,
                counters,
            }));
        }
        Ok(all)
    }
}

/// Of a link without an end on the host.
fn inside(endpoint: &Endpoint) -> Option<Counters> {
    let netns = Netns::open(&endpoint.netns_path).ok().filter(|netns| netns.inode() == endpoint.netns_inode)?;
    let counters = netns.within(|| Netlink::open().and_then(|mut netlink| netlink.counters())).ok()?.ok()?;
    counters.get(&endpoint.interface).copied()
}
