//! Removal: out of sight first, deleted after; and the sweep of what a killed process left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::acquire::{WORKER, is_dead_worker};
use crate::option::Backing;
use crate::references::{self, Released, Unmount};
use crate::replace::discard;
use crate::volumes::{described, lock, sync_directory};
use crate::{Error, Filters, Result, Volumes, copy_up, event, names, option, overlay, plugin, record, snapshot};

/// What a prune took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names.
    pub removed: Vec<String>,
    /// Bytes on disk that came free.
    pub reclaimed_bytes: u64,
}

impl Volumes {
    /// Removes a volume that nobody holds, by its name or id. With `force` a missing one is fine; a used one is refused
    /// all the same.
    ///
    /// # Errors
    /// [`Error::InUse`] names the consumers; [`Error::NotFound`]; its driver does not let it go.
    pub fn remove(&self, name: &str, force: bool) -> Result<()> {
        record::check_name(name)?;
        let volumes = self.volumes();
        let Some(id) = names::resolve(&volumes, name)? else {
            return if force { Ok(()) } else { Err(Error::NotFound(name.into())) };
        };
        // A damaged volume can be removed too: only its directory counts.
        let volume = self.look(name).ok().flatten();
        let name = match &volume {
            Some(volume) => volume.name.clone(),
            None if name == id => names::of(&volumes, &id)?,
            None => name.to_owned(),
        };
        let backing = volume.as_ref().and_then(|volume| option::backing_of(volume).ok());
        let gone = self.root.join("removing").join(record::random_id());
        if let (Some(volume), Some(Backing::Plugin)) = (&volume, &backing) {
            // The driver first: while it refuses, the volume stays.
            self.refuse_used(&id, &name)?;
            plugin::remove(self, volume, force)?;
        }
        let moved = self.references.write("remove a volume", |transaction| {
            let consumers = references::consumers(transaction, &id)?;
            let directory = self.directory(&id);
            if !consumers.is_empty() && directory.exists() {
                return Err(Error::InUse { name: name.clone(), consumers }.into());
            }
            match fs::rename(&directory, &gone) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(Error::io("remove", &directory)(error).into()),
            }
            names::give_back(&volumes, &name)?;
            event::append(transaction, "destroy", &name, &volume.as_ref().map(described).unwrap_or_default())?;
            Ok(true)
        })?;
        if !moved {
            return if force { Ok(()) } else { Err(Error::NotFound(name)) };
        }
        sync_directory(&volumes)?;
        // The volume is gone by now; what cannot be deleted is tried again by the next sweep.
        let rest = self.unmount_unused(&id).and_then(|()| match backing {
            Some(Backing::Content { .. }) => self.store()?.unmount(&id),
            _ => Ok(()),
        });
        if let Err(error) = rest.and(discard(&gone)) {
            tracing::warn!(volume = name, %error, "cannot delete all of a removed volume yet");
        }
        Ok(())
    }

    fn refuse_used(&self, id: &str, name: &str) -> Result<()> {
        let held = self.references.read("read references", |connection| references::consumers(connection, id))?;
        if held.is_empty() { Ok(()) } else { Err(Error::InUse { name: name.into(), consumers: held }) }
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
            // What a bind shows is the host's, and stays.
            let bytes = match option::backing_of(&volume) {
                Ok(Backing::Bind { .. }) | Err(_) => 0,
                Ok(_) => self.used(&volume).unwrap_or(0),
            };
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
        let about = BTreeMap::from([("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())]);
        self.references.write("record an event", |connection| {
            event::append(connection, "prune", "", &about).map_err(Into::into)
        })?;
        Ok(pruned)
    }

    /// Gives back what a consumer holds (on one volume, or all), and with `remove_anonymous` removes those anonymous
    /// volumes that nobody holds any more. Nothing held is fine.
    ///
    /// # Errors
    /// No consumer named; the database; a file system that cannot be unmounted.
    pub fn release(&self, consumer: &str, volume: Option<&str>, remove_anonymous: bool) -> Result<Released> {
        if consumer.is_empty() {
            return Err(Error::Invalid { field: "consumer", value: String::new(), why: "it is required".into() });
        }
        let only = match volume {
            Some(name) => match names::resolve(&self.volumes(), name)? {
                Some(id) => Some(id),
                None => return Ok(Released::default()),
            },
            None => None,
        };
        let taken = self.references.write("release", |transaction| {
            let mut taken = Vec::new();
            for (id, target) in references::take(transaction, consumer, only.as_deref())? {
                let volume = self.read_id(&id).ok().flatten();
                let name = volume.as_ref().map_or(id.as_str(), |volume| volume.name.as_str()).to_owned();
                event::append(transaction, "unmount", &name, &references::about(consumer, &target))?;
                let volume = volume.filter(|it| option::backing_of(it).is_ok_and(|it| it == Backing::Plugin));
                let unmount = volume.map(|volume| Unmount {
                    mount_id: references::mount_id(consumer, &target),
                    name: plugin::name_of(&volume),
                    driver: volume.driver,
                    volume: id.clone(),
                });
                if let Some(unmount) = &unmount {
                    references::note_unmount(transaction, unmount)?;
                }
                taken.push(Taken { id, name, target, unmount });
            }
            Ok(taken)
        })?;
        let (mut released, mut failure) = (Released::default(), Ok(()));
        for one in taken {
            let given = self.after_release(consumer, &one);
            failure = failure.and(given);
            if !released.released.contains(&one.name) {
                released.released.push(one.name);
            }
            if remove_anonymous && self.read_id(&one.id).ok().flatten().is_some_and(|it| it.anonymous) {
                match self.remove(&one.id, true) {
                    Ok(()) => released.removed.push(one.id),
                    Err(Error::InUse { .. }) => {}
                    Err(error) => failure = failure.and(Err(error)),
                }
            }
        }
        released.released.sort();
        failure.map(|()| released)
    }

    fn after_release(&self, consumer: &str, one: &Taken) -> Result<()> {
        overlay::remove(&self.root, &one.id, (consumer, &one.target))?;
        if let Some(unmount) = &one.unmount {
            plugin::undo(self, unmount)?;
        }
        self.unmount_unused(&one.id)
    }
}

/// One reference that was given back.
struct Taken {
    id: String,
    name: String,
    target: String,
    unmount: Option<Unmount>,
}

/// Removes what is half made or half removed and finishes copies that were complete; what fails stays for next time.
pub(crate) fn sweep(volumes: &Volumes) {
    let root = &volumes.root;
    let staging = root.join("staging");
    if let Ok(_alone) = lock(&staging, FlockOperation::NonBlockingLockExclusive) {
        delete_entries(&staging);
        drop_dangling(volumes);
    }
    if root.join("overlays").exists() {
        // References that are added meanwhile make their directories after: the lock keeps them apart.
        let swept = volumes.references.write("sweep", |connection| {
            overlay::sweep(root, &references::held(connection, None)?);
            Ok(())
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "cannot remove what overlays left");
        }
    }
    delete_entries(&root.join("removing"));
    for entry in fs::read_dir(root.join("volumes")).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Err(error) = copy_up::recover(&entry.path()).and_then(|()| snapshot::recover(&entry.path())) {
            tracing::warn!(volume = %entry.path().display(), %error, "cannot finish what was begun with it yet");
        }
    }
    volumes.sweep_mounts();
}

/// A process at work holds its volume while it lives. Drivers can be found by now: they may have to be told.
pub(crate) fn drop_dead_workers(volumes: &Volumes) {
    let workers = volumes.references.read("read references", |connection| references::beginning(connection, WORKER));
    for consumer in workers.unwrap_or_default().iter().filter(|consumer| is_dead_worker(consumer)) {
        if let Err(error) = volumes.release(consumer, None, false) {
            tracing::warn!(%error, "cannot give back what a killed process held yet");
        }
    }
}

/// Names of volumes that a killed process was making or removing.
fn drop_dangling(volumes: &Volumes) {
    let path = volumes.volumes();
    if !names::scan(&path).is_ok_and(|names| !names.dangling.is_empty()) {
        return;
    }
    let dropped = volumes.references.write("drop names", |_| {
        for name in names::scan(&path)?.dangling {
            names::give_back(&path, &name)?;
        }
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "cannot drop names of volumes that are not there");
    }
}

fn delete_entries(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let _ = discard(&entry.path());
    }
}
