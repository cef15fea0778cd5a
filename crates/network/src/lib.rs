//! Networks and endpoints on any network namespace: links, addresses, routes, firewall rules, names.
//!
//! It knows no containers: an endpoint is a *netns path*, whoever made it, and an *owner*, which is a word. Published
//! ports are firewall rules, there is no proxy; one small process that answers nobody holds their sockets, so that no
//! other program takes them, and names are served by another, the [`keeper`]. It does not manage the host's own links,
//! and in the host's firewall it touches tables of its own only.
//!
//! # How an attach goes
//!
//! ```text
//! request ── check ──▶ record (attaching) ──▶ plan: wanted + current → changes ──▶ apply ──▶ record (ready)
//!                          │ addresses, ports                                        │ fails
//!                          └──────────────── record removed ◀── links taken back ◀──┘
//! ```
//!
//! A process that dies in between leaves a record that says how far it came; [`Networks::reconcile`] undoes it.
//! Changes of the kernel hold `<root>/network/lock` (flock); reading never waits for it, and nobody holds it while
//! waiting for others: a DHCP server, a CNI plugin, a driver's server. Then `<run>/network/busy/<endpoint>` is held.
//!
//! # Drivers
//!
//! [`driver`] has ours, each a few pure functions from records to changes: bridge (also somebody else's, `mode=unmanaged`),
//! veth, macvlan, ipvlan, vlan, overlay. Those of others are asked by `foreign`: CNI plugin chains ([`cni::chain`]),
//! servers of `pier.network.driver.v1` on `<run>/network/drivers/<name>.sock`, servers of docker's protocols in docker's
//! plugin directories, for networks and for addresses (`IpamDriver`). The program is also a CNI plugin itself ([`cni::plugin`]).
//!
//! # On disk
//!
//! - `<root>/network/network.db`: SQLite; networks, endpoints, addresses, ports, events. See [`store`].
//! - `<root>/network/lock`: held while the kernel is changed.
//! - `<run>/network/ns/<key>`: network namespaces, bound.
//! - `<run>/network/ports.sock`: where the holder of published ports is asked, while there is one.
//! - `<run>/network/firewall`: the firewall's backend in use. See [`firewall`].
//! - `<run>/network/keeper.sock`, `.lock`, `.log`: the process that serves names. See [`keeper`].
//!
//! In the kernel: a bridge `pier-<8 hex>` for each network with endpoints, a veth end `pv<12 hex>` for each endpoint,
//! for an overlay network a VXLAN link `px-<8 hex>` and, when it is encrypted, the associations and policies of
//! [`ipsec`], the tables or chains of the [`firewall`]. "Host" is the network namespace the program was started in.
//!
//! # Example
//!
//! ```no_run
//! use network::{Config, Networks, NewEndpoint, NewNetwork};
//!
//! # fn main() -> Result<(), network::Error> {
//! let networks = Networks::open(Config::new("/var/lib/pier/network".as_ref(), "/run/pier/network".as_ref()))?;
//! networks.create(NewNetwork { name: "blue".into(), ..NewNetwork::default() })?;
//! let netns_path = networks.create_namespace("web", &Default::default())?;
//! let endpoint = networks.attach(&NewEndpoint {
//!     network: "blue".into(),
//!     netns_path,
//!     owner: "web".into(),
//!     ports: vec!["8080:80".parse()?],
//!     ..NewEndpoint::default()
//! })?;
//! println!("{:?}", endpoint.addresses);
//! # Ok(())
//! # }
//! ```

pub mod cni;
mod config;
mod convert;
mod create;
mod dhcp;
mod diagnose;
pub mod dns;
pub mod driver;
mod endpoints;
mod error;
mod filter;
pub mod firewall;
mod foreign;
mod info;
pub mod ipam;
pub mod ipsec;
pub mod keeper;
mod kernel;
mod model;
mod names;
mod namespaces;
pub mod netlink;
mod networks;
mod options;
pub mod plan;
mod policy;
mod ports;
mod reconcile;
mod serve;
mod service;
mod stats;
pub mod store;
mod tunnel;
mod watch;

pub use config::Config;
pub use diagnose::{Finding, Question, Verdict};
pub use endpoints::{Detach, Detached};
pub use error::{Error, Result};
pub use firewall::Backend;
pub use info::Info;
pub use model::{
    AddressRange, DEFAULT_NETWORK, Dns, Driver, Endpoint, EndpointState, Ipam, Isolation, NamedPort, Network,
    NewEndpoint, NewNetwork, NewSubnet, OPTION_BRIDGE_NAME, OPTION_HOST_BINDING, OPTION_MASQUERADE, OPTION_MTU, Pool,
    PortMapping, Protocol, Route, RouteKind, Subnet,
};
pub use names::NetworkUpdate;
pub use networks::{Filters, Networks};
pub use policy::{Policy, PolicyPorts, Selector};
pub use ports::holder::{HOLD_PORTS, run as hold_ports};
pub use serve::{Background, SERVICE};
pub use service::Service;
pub use stats::Statistics;
pub use store::{EndpointFilter, StoredEvent};
pub use watch::Watch;
