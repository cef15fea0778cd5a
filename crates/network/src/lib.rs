//! Networks and endpoints on any network namespace: links, addresses, routes, firewall rules, names.
//!
//! It knows no containers: an endpoint is a *netns path*, whoever made it, and an *owner*, which is a word. It starts
//! no daemon and no proxy; published ports are firewall rules. It does not manage the host's own links, and in the
//! host's firewall it touches one table, its own.
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
//! Changes of the kernel hold `<root>/network/lock` (flock); reading never waits for it.
//!
//! # On disk
//!
//! - `<root>/network/network.db`: SQLite; networks, endpoints, addresses, ports, events. See [`store`].
//! - `<root>/network/lock`: held while the kernel is changed.
//! - `<run>/network/ns/<key>`: network namespaces, bound.
//!
//! In the kernel: a bridge `pier-<8 hex>` for each network with endpoints, a veth end `pv<12 hex>` for each endpoint,
//! one nftables table. "Host" is the network namespace the program was started in.
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

mod config;
mod convert;
mod dhcp;
pub mod dns;
pub mod driver;
mod endpoints;
mod error;
pub mod firewall;
pub mod ipam;
mod kernel;
mod model;
mod namespaces;
pub mod netlink;
mod networks;
pub mod plan;
mod ports;
mod reconcile;
mod serve;
mod service;
pub mod store;
mod watch;

pub use config::Config;
pub use endpoints::{Detach, Detached};
pub use error::{Error, Result};
pub use model::{
    DEFAULT_NETWORK, Driver, Endpoint, EndpointState, Ipam, Isolation, Network, NewEndpoint, NewNetwork, NewSubnet,
    OPTION_BRIDGE_NAME, OPTION_MASQUERADE, OPTION_MTU, PortMapping, Protocol, Route, Subnet,
};
pub use networks::{Filters, Networks};
pub use ports::holder::{HOLD_PORTS, run as hold_ports};
pub use serve::{Background, SERVICE};
pub use service::Service;
pub use store::{EndpointFilter, StoredEvent};
pub use watch::Watch;
