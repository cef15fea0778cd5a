//! Garbage collection and leases.
