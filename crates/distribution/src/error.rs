//! x
/// x
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// x
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// x
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
}
