//! The name server of the networks: on each bridge network's gateway, port 53, UDP and TCP.
//!
//! It answers for the names of the network's endpoints (A, AAAA, PTR), so that a name is known on its own network
//! only; `host.docker.internal` and `host.pier.internal` are the gateway. Everything else goes to the host's
//! upstreams, except on internal networks, where there is nothing else.

mod index;
mod server;
pub mod upstream;

pub use index::{Answer, Index, Zone, index};
pub use server::Servers;
