//! What a stack of networks is configured with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::firewall::Backend;
use crate::ports::Owner;

/// Where state lives, and what is taken from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data directory: `<root>/network`.
    pub root: PathBuf,
    /// Run directory: `<run>/network`; namespaces are bound below it.
    pub run: PathBuf,
    /// Name of the nftables tables, and, in capitals, of the iptables chains. Two stacks in one network namespace need two names.
    pub table: String,
    /// By what means rules come into the kernel. Absent: by what the stack uses already, else by what the host has.
    pub firewall: Option<Backend>,
    /// Where subnets of networks that name none come from, in order; each gives `/24`s.
    pub pools: Vec<Ipv4Net>,
    /// The host's resolver configuration: the upstreams of the name server.
    pub resolv_conf: PathBuf,
    /// The program that holds the sockets of published ports when started with `hold-ports`: `pier-network`. Absent:
    /// ports are only looked at when they are published, and a program can take one later.
    pub holder: Option<PathBuf>,
    /// Where drivers that speak docker's protocol are found, in order.
    pub plugins: Vec<PathBuf>,
    /// The command that runs [`crate::keeper::keep`] for this stack, in the background. Empty: nobody starts one.
    pub keeper: Vec<OsString>,
}

impl Config {
    /// The configuration of the stack with this data and run directory (both of this tool, not of the stack).
    #[must_use]
    pub fn new(root: &Path, run: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: run.to_owned(),
            table: table_name(root),
            firewall: None,
            pools: default_pools(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            holder: None,
            plugins: rpc::plugin::directories(),
            keeper: Vec::new(),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("network.db")
    }

    /// Held by whoever changes the kernel on behalf of this stack.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held by whoever attaches this endpoint.
    pub(crate) fn busy(&self, endpoint: &str) -> PathBuf {
        self.run.join("busy").join(endpoint)
    }

    /// Sockets of drivers that serve `pier.network.driver.v1`.
    pub(crate) fn drivers(&self) -> PathBuf {
        self.run.join("drivers")
    }

    /// Where the holder of published ports is asked.
    pub(crate) fn holder_socket(&self) -> PathBuf {
        self.run.join("ports.sock")
    }

    /// Whom the sockets at the port belong to that name server and holder share.
    pub(crate) fn port_owner(&self) -> Owner {
        Owner::of_hash(hash(self.table.as_bytes()))
    }

    /// Held by the one keeper of this stack.
    pub(crate) fn keeper_lock(&self) -> PathBuf {
        self.run.join("keeper.lock")
    }

    /// Where the keeper is asked.
    pub(crate) fn keeper_socket(&self) -> PathBuf {
        self.run.join("keeper.sock")
    }

    pub(crate) fn keeper_log(&self) -> PathBuf {
        self.run.join("keeper.log")
    }

    pub(crate) fn namespaces(&self) -> PathBuf {
        self.run.join("ns")
    }
}

/// `pier` for the default root, else `pier_` and a hash of the root.
fn table_name(root: &Path) -> String {
    if root == Path::new("/var/lib/pier/network") {
        return "pier".into();
    }
    format!("pier_{:08x}", hash(root.as_os_str().as_encoded_bytes()))
}

/// FNV-1a: the same in every build.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// 10.88.0.0/13 and the end of 192.168.0.0/16: away from what clouds and docker use.
fn default_pools() -> Vec<Ipv4Net> {
    ["10.88.0.0/13", "192.168.192.0/18"].iter().filter_map(|pool| pool.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_root_has_its_own_table() {
        assert_eq!(table_name(Path::new("/var/lib/pier/network")), "pier");
        let other = table_name(Path::new("/tmp/a/network"));
        assert!(other.starts_with("pier_") && other.len() == 13, "{other}");
        assert_ne!(other, table_name(Path::new("/tmp/b/network")));
    }
}
