//! Questions about everything: info, version, disk usage, prune.
pub mod info;
pub mod prune;
pub mod usage;
