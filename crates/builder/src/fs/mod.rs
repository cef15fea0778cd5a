//! Files: patterns, content hashes and copies, all below a root that symbolic links cannot leave.

mod attributes;
pub mod copy;
pub mod digest;
pub mod ignore;
pub mod owner;
pub mod pattern;
pub mod root;
pub mod source;
mod unpack;

#[cfg(test)]
#[path = "fs_tests.rs"]
mod tests;
