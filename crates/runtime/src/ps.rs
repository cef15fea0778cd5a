//! `ps`: which processes are in a container.

use crate::Result;
use crate::state::Store;

/// Host pids of all processes in the container's cgroups.
///
/// # Errors
/// [`crate::Error::NotFound`], [`crate::Error::NotRunning`].
pub fn pids(store: &Store, id: &str) -> Result<Vec<i32>> {
    let container = store.load(id)?;
    container.init()?;
    Ok(container.record.cgroup.pids())
}
