//! One suite per service. Each uses names of its own and removes what it made.
mod distribution;
mod health;
mod locations;
mod network;
mod supervisor;
mod volume;

pub use distribution::distribution;
pub use health::health_and_reflection;
pub use locations::locations;
pub use network::network;
pub use supervisor::supervisor;
pub use volume::volume;
