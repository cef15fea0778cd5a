//! Credentials: checked against the registry first, stored after.

use std::path::Path;

use crate::error::Result;
use crate::registry::{Credentials, Options, Registry, credentials};

/// Logs in. Nothing is stored when the registry refuses.
///
/// # Errors
/// [`crate::registry::Error::Unauthorized`] and those of any request.
pub async fn login(registry: &str, options: &Options, file: &Path, given: &Credentials) -> Result<()> {
    let options = Options { credentials: Some(given.clone()), auth_file: None, ..options.clone() };
    Registry::open(registry, &options).await?.ping().await?;
    Ok(credentials::store(file, registry, given).await?)
}
