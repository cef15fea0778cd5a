//! Docker's flag words turned into the protocols' messages: pure functions, each with a table of cases.

pub mod config;
pub mod container;
pub mod device;
pub mod environment;
pub mod filter;
pub mod mount;
pub mod network;
pub mod policy;
pub mod port;
pub mod quantity;
pub mod security;
pub mod time;
