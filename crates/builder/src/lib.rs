//! pier-builder's library: images from sources.
pub mod error;
pub mod frontend;
pub mod fs;
pub mod graph;
pub mod llb;
pub mod progress;
pub mod solve;

pub use error::Error;
