//! Image content into an empty volume, whole or not at all.
//!
//! ```text
//! copy-up.partial   being copied; a crash leaves it, the next look removes it
//!        │ sync, rename
//! copy-up.ready     whole; its entries move into _data one by one; a crash leaves the rest, the next look goes on
//!        │ entries moved, _data gets its owner, mode, times
//! _data
//! ```
//! The volume's directory is locked meanwhile, so a second consumer waits until the content is there.

mod copy;
mod merged;

use std::fs;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::volumes::{lock, sync_directory};
use crate::{CopyUp, Error, Result};

const PARTIAL: &str = "copy-up.partial";
const READY: &str = "copy-up.ready";

/// Copies content into the volume of this directory if the volume is empty.
pub(crate) fn fill(volume: &Path, content: &CopyUp) -> Result<()> {
    let _alone = lock(volume, FlockOperation::LockExclusive)?;
    finish(volume)?;
    let data = volume.join("_data");
    if fs::read_dir(&data).map_err(Error::io("list", &data))?.next().is_some() {
        return Ok(());
    }
    let root = merged::Directory::new(&content.layers)?;
    let Some(source) = root.resolve(&content.path)? else { return Ok(()) };
    let partial = volume.join(PARTIAL);
    copy::tree(&source, &partial)?;
    let opened = fs::File::open(&partial).map_err(Error::io("open", &partial))?;
    rustix::fs::syncfs(&opened).map_err(Error::io("sync", &partial))?;
    let ready = volume.join(READY);
    fs::rename(&partial, &ready).map_err(Error::io("place", &ready))?;
    sync_directory(volume)?;
    finish(volume)
}

/// Finishes or removes what a killed process left in the volume of this directory.
pub(crate) fn recover(volume: &Path) -> Result<()> {
    if !volume.join(PARTIAL).exists() && !volume.join(READY).exists() {
        return Ok(());
    }
    // Somebody else is at it: then there is nothing to recover.
    match lock(volume, FlockOperation::NonBlockingLockExclusive) {
        Ok(_alone) => finish(volume),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// The caller holds the volume's lock.
fn finish(volume: &Path) -> Result<()> {
    let partial = volume.join(PARTIAL);
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", partial)(error)),
        _ => {}
    }
    let (ready, data) = (volume.join(READY), volume.join("_data"));
    let entries = match fs::read_dir(&ready) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", ready)(error)),
    };
    // Collected first: moving entries while reading their directory could skip some. The times of the directory are
    // taken now, before the moves touch them.
    let entries: Vec<_> = entries.collect::<Result<_, _>>().map_err(Error::io("list", &ready))?;
    let attributes = copy::Attributes::read(&ready)?;
    for entry in entries {
        let target = data.join(entry.file_name());
        fs::rename(entry.path(), &target).map_err(Error::io("place", &target))?;
    }
    attributes.apply(&data)?;
    sync_directory(&data)?;
    fs::remove_dir(&ready).map_err(Error::io("remove", &ready))?;
    sync_directory(volume)
}

#[cfg(test)]
mod tests;
