//! x
pub mod error;
pub mod registry;
pub use error::Error;
