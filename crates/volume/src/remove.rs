//! Removal: out of sight first, deleted after; and the sweep of what a killed process left.

use std::fs;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::references::{self, Released};
use crate::volumes::{described, lock, sync_directory};
use crate::{Error, Filters, Result, Volumes, copy_up, event, record, size};

/// What a prune took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names.
    pub removed: Vec<String>,
    /// Bytes on disk that came free.
    pub reclaimed_bytes: u64,
}

impl Volumes {
    /// Removes a volume that nobody holds. With `force` a missing one is fine; a used one is refused all the same.
    ///
    /// # Errors
    /// [`Error::InUse`] names the consumers; [`Error::NotFound`].
    pub fn remove(&self, name: &str, force: bool) -> Result<()> {
        record::check_name(name)?;
        let gone = self.root.join("removing").join(record::random_name());
        let directory = self.directory(name);
        // A damaged volume can be removed too: only its directory counts.
        let attributes = record::read(&directory, name).ok().flatten().map(|volume| described(&volume));
        let moved = self.references.write("remove a volume", |transaction| {
            let consumers = references::consumers(transaction, name)?;
            if !consumers.is_empty() && directory.exists() {
                return Err(Error::InUse { name: name.into(), consumers }.into());
            }
            match fs::rename(&directory, &gone) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(Error::io("remove", &directory)(error).into()),
            }
            event::append(transaction, "destroy", name, &attributes.unwrap_or_default())?;
            Ok(true)
        })?;
        if !moved {
            return if force { Ok(()) } else { Err(Error::NotFound(name.into())) };
        }
        sync_directory(&self.root.join("volumes"))?;
        // The volume is gone by now; what cannot be deleted is tried again by the next sweep.
        if let Err(error) = fs::remove_dir_all(&gone) {
            tracing::warn!(volume = name, path = %gone.display(), %error, "cannot delete removed data yet");
        }
        Ok(())
    }

    /// Removes the volumes that nobody holds: anonymous ones, with `all` named ones too.
    ///
    /// # Errors
    /// The root cannot be read, or a removal failed for another reason than new use.
    pub fn prune(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for volume in self.list(filters, false)?.volumes {
            if !volume.consumers.is_empty() || !(all || volume.anonymous) {
                continue;
            }
            let bytes = size::of_tree(&volume.mountpoint).unwrap_or(0);
            match self.remove(&volume.name, false) {
                Ok(()) => {
                    pruned.removed.push(volume.name);
                    pruned.reclaimed_bytes += bytes;
                }
                // Taken or removed since it was listed.
                Err(Error::InUse { .. } | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// Gives back what a consumer holds (on one volume, or all), and with `remove_anonymous` removes those anonymous
    /// volumes that nobody holds any more. Nothing held is fine.
    ///
    /// # Errors
    /// No consumer named; the database.
    pub fn release(&self, consumer: &str, volume: Option<&str>, remove_anonymous: bool) -> Result<Released> {
        if consumer.is_empty() {
            return Err(Error::Invalid { field: "consumer", value: String::new(), why: "it is required".into() });
        }
        let released = self
            .references
            .write("release", |transaction| references::take(transaction, consumer, volume).map_err(Into::into))?;
        let mut removed = Vec::new();
        for name in &released {
            let anonymous = || record::read(&self.directory(name), name).ok().flatten().is_some_and(|it| it.anonymous);
            if !remove_anonymous || !anonymous() {
                continue;
            }
            match self.remove(name, true) {
                Ok(()) => removed.push(name.clone()),
                Err(Error::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Released { released, removed })
    }
}

/// Removes what is half made or half removed and finishes copies that were complete; what fails stays for next time.
pub(crate) fn sweep(root: &Path) {
    let staging = root.join("staging");
    if let Ok(_alone) = lock(&staging, FlockOperation::NonBlockingLockExclusive) {
        delete_entries(&staging);
    }
    delete_entries(&root.join("removing"));
    for entry in fs::read_dir(root.join("volumes")).into_iter().flatten().flatten() {
        if let Err(error) = copy_up::recover(&entry.path()) {
            tracing::warn!(volume = %entry.path().display(), %error, "cannot finish a copy of image content yet");
        }
    }
}

fn delete_entries(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
}
