//! This terminal joined to a process in a container.

pub mod keys;
pub mod pump;
pub mod signals;
pub mod stdin;
pub mod terminal;
