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

pub(crate) mod copy;
pub(crate) mod merged;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::handle::Handle;
use crate::mounted::sync_filesystem;
use crate::volumes::{lock, sync_directory};
use crate::{CopyUp, Error, Result, project};

const PARTIAL: &str = "copy-up.partial";
const READY: &str = "copy-up.ready";

/// Copies content into the volume of this directory if the volume is empty; its data is `home/_data`.
pub(crate) fn fill(volume: &Path, home: &Path, content: &CopyUp) -> Result<()> {
    fill_with(volume, home, |partial| {
        let root = merged::Directory::new(&content.layers)?;
        let Some(source) = root.resolve(&content.path)? else { return Ok(false) };
        copy::tree(&source, partial)?;
        Ok(true)
    })
    .map(drop)
}

/// Lets `make` make the content of a volume that is still empty, in an empty directory. `false`: the volume was not empty,
/// or nothing was made.
pub(crate) fn fill_with(volume: &Path, home: &Path, make: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
    let _alone = lock(volume, FlockOperation::LockExclusive)?;
    finish(home)?;
    let data = home.join("_data");
    if fs::read_dir(&data).map_err(Error::io("list", &data))?.next().is_some() {
        return Ok(false);
    }
    let partial = home.join(PARTIAL);
    DirBuilder::new().mode(0o700).create(&partial).map_err(Error::io("create", &partial))?;
    match project::join(&partial, &data).and_then(|()| project::within_limit(|| make(&partial))) {
        Ok(true) => {}
        other => {
            finish(home)?;
            return other;
        }
    }
    sync_filesystem(&partial)?;
    let ready = home.join(READY);
    fs::rename(&partial, &ready).map_err(Error::io("place", &ready))?;
    sync_directory(home)?;
    finish(home)?;
    Ok(true)
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

/// The same for the directory that holds the data. The caller holds the volume's lock.
pub(crate) fn finish(volume: &Path) -> Result<()> {
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
    let attributes = copy::Attributes::read(&Handle::of(&ready)?, true)?;
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
