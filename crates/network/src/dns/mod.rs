//! The name server of the networks: on each bridge network's gateway, port 53, UDP and TCP. The keeper runs it.
//!
//! It answers for the names of the network's endpoints (A, AAAA, PTR, SRV), alone and with the network's name behind
//! them (`web`, `web.blue`). A namespace on several networks sees the names of all, whichever it asks; who is not on a
//! network is refused. `host.docker.internal`, `host.containers.internal` and `host.pier.internal` are the gateway.
//! Everything else goes to the upstreams at once: the endpoint's own, else the network's, else the host's. An internal
//! network's sockets forward nothing, whoever asks.
//!
//! Port 53 can be published all the same: on all addresses but these.

mod index;
mod server;
pub mod upstream;
mod zone;

pub use index::{Answer, Index, index};
pub(crate) use server::PORT;
pub use server::{Servers, Sockets};
pub use zone::Zone;
