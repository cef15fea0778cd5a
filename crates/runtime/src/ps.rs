//! `ps`: which processes are in a container.

use crate::Result;
use crate::state::Store;

/// Host pids of all processes in the container's cgroups and below; none when it has stopped.
///
/// # Errors
/// [`crate::Error::NotFound`].
pub fn pids(store: &Store, id: &str) -> Result<Vec<i32>> {
    let container = store.load(id)?;
    Ok(container.record.cgroup.pids())
}
