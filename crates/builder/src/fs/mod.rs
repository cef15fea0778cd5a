//! Files: patterns, content hashes and copies, all below a root that symbolic links cannot leave.

pub mod ignore;
pub mod pattern;
