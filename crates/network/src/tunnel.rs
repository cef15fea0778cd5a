//! Whether the VXLAN link of an overlay network is as the record says.

use std::collections::BTreeSet;

use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Driver, Network};
use crate::plan::Change;

/// What is wrong with it, in words, and what mends it; nothing while there is no bridge that it could join to others.
///
/// # Errors
/// The kernel's.
pub(crate) fn fault(kernel: &mut Kernel<'_>, network: &Network) -> Result<Option<(String, Vec<Change>)>> {
    if network.driver != Driver::Overlay {
        return Ok(None);
    }
    let view = kernel.view(network)?;
    let name = driver::vxlan_link(network);
    let step = || Error::kernel(format!("look at link {name}"));
    let Some(bridge) = kernel.host.link(&network.bridge).map_err(step())? else { return Ok(None) };
    let again = |what: &str| Ok(Some((format!("link {name} {what}"), driver::tunnel(network, &view))));
    match kernel.host.link(&name).map_err(step())? {
        None => again("is gone"),
        Some(link) if link.controller != Some(bridge.index) => again("is off its bridge"),
        Some(link) => {
            let found: BTreeSet<_> = kernel.host.peers(link.index).map_err(step())?.into_iter().collect();
            let found = Network { peers: found.into_iter().collect(), ..network.clone() };
            let changes = driver::peers_of_link(&found, &network.peers);
            Ok((!changes.is_empty()).then(|| (format!("link {name} has other peers"), changes)))
        }
    }
}
