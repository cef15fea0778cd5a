//! `pause` and `resume`. The freezer itself is the record.

use crate::state::{Status, Store};
use crate::{Error, Result};

/// Freezes all processes of a container.
///
/// # Errors
/// [`Error::NotRunning`] unless it runs.
pub fn pause(store: &Store, id: &str) -> Result<()> {
    let container = store.load(id)?;
    match container.status {
        Status::Running | Status::Created => container.record.cgroup.freeze(),
        Status::Paused => Err(Error::WrongStatus { verb: "pause", id: id.to_owned(), status: "paused" }),
        other => Err(Error::NotRunning { id: id.to_owned(), status: other.as_str() }),
    }
}

/// Lets a paused container go on.
///
/// # Errors
/// [`Error::WrongStatus`] unless it is paused.
pub fn resume(store: &Store, id: &str) -> Result<()> {
    let container = store.load(id)?;
    match container.status {
        Status::Paused => container.record.cgroup.thaw(),
        other => Err(Error::Argument(format!("container not paused: {id} is {}", other.as_str()))),
    }
}
