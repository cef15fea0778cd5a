//! `linux.netDevices`: interfaces of the runtime's network namespace that move into the container's, with their addresses.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use libcontainer::network::NetworkError;
use libcontainer::network::address::AddressClient;
use libcontainer::network::cidr::CidrAddress;
use libcontainer::network::link::LinkClient;
use libcontainer::network::network_device::{
    dev_change_net_namespace, resolve_device_name, setup_addresses_in_network_namespace,
};
use libcontainer::network::wrapper::create_network_client;
use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespaceType, LinuxNetDevice, Spec};

use crate::error::Context;
use crate::harden::namespace;
use crate::hook::chain;
use crate::mounting::Step;
use crate::{Error, Result, errand};

/// The devices of a configuration.
pub(crate) fn of(spec: &Spec) -> Option<&HashMap<String, LinuxNetDevice>> {
    spec.linux().as_ref()?.net_devices().as_ref().filter(|d| !d.is_empty())
}

/// Refuses devices that have nowhere to go, and names that the kernel would not take (interface(7): 15 bytes, no `/`).
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let Some(devices) = of(spec) else { return Ok(()) };
    if namespace(spec, LinuxNamespaceType::Network).is_none() {
        return Err(Error::Refused("unable to move network devices without a private NET namespace".into()));
    }
    let mut taken = Vec::new();
    for (name, device) in devices {
        let inside = resolve_device_name(device, name);
        if !is_name(name) || !is_name(inside) {
            return Err(Error::Refused(format!("invalid network device name {name:?} or {inside:?}")));
        }
        if taken.contains(&inside) {
            return Err(Error::Refused(format!("two network devices are to be {inside:?}")));
        }
        taken.push(inside);
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace();
    !matches!(name, "" | "." | "..") && name.len() < libc::IFNAMSIZ && !name.contains(odd)
}

/// Moves all of them to the network namespace of `pid`, whose pidfd that is, and brings them up there.
pub(crate) fn move_all(devices: &HashMap<String, LinuxNetDevice>, pid: i32, pidfd: &OwnedFd) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).step(|| format!("cannot open {path}"))?;
    for (name, device) in devices {
        let failed = |e| Error::Init(format!("network device {name}: {}", chain(&e)));
        let addresses = addresses(name).map_err(failed)?;
        dev_change_net_namespace(name, namespace.as_raw_fd(), device).map_err(failed)?;
        let inside = resolve_device_name(device, name);
        errand::run(pidfd, CloneFlags::CLONE_NEWNET, || set_up(inside, &addresses).map(|()| None))?;
    }
    Ok(())
}

/// The global, lasting addresses of a device. Asked before it is taken down, which costs it those of IPv6.
fn addresses(name: &str) -> std::result::Result<Vec<CidrAddress>, NetworkError> {
    /// `IFA_F_PERMANENT` and `RT_SCOPE_UNIVERSE` of rtnetlink(7).
    const PERMANENT: u32 = 0x80;
    const UNIVERSE: u8 = 0;
    let index = LinkClient::new(create_network_client())?.get_by_name(name)?.header.index;
    let all = AddressClient::new(create_network_client())?.get_by_index(index)?;
    let lasting = all
        .iter()
        .filter(|a| u32::from(a.header.flags.bits()) & PERMANENT != 0 && u8::from(a.header.scope) == UNIVERSE);
    Ok(lasting.map(CidrAddress::from).collect())
}

/// In the container's network namespace.
fn set_up(name: &str, addresses: &[CidrAddress]) -> Step {
    let go = || {
        let mut links = LinkClient::new(create_network_client())?;
        let index = links.get_by_name(name)?.header.index;
        let mut client = AddressClient::new(create_network_client())?;
        setup_addresses_in_network_namespace(addresses, index, name, &mut client)?;
        links.set_up(index)
    };
    go().map_err(|e| format!("network device {name}: {}", chain(&e)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    #[test]
    fn what_is_refused() {
        let check = |devices, namespaces| {
            let spec = json!({"ociVersion": "1.3.0", "linux": {"netDevices": devices, "namespaces": namespaces}});
            super::check(&serde_json::from_value(spec).unwrap())
        };
        let network = json!([{"type": "network"}]);
        assert!(check(json!({"eth0": {"name": "lan"}, "eth1": {}}), network.clone()).is_ok());
        assert!(check(json!({"eth0": {}}), json!([])).is_err());
        for bad in [json!({"eth0": {"name": "eth1"}, "eth1": {}}), json!({"a/b": {}}), json!({"sixteen-bytes-xx": {}})]
        {
            assert!(check(bad, network.clone()).is_err());
        }
    }
}
