//! A volume as a tar, and back: owners, modes, times to the nanosecond, extended attributes (PAX, `SCHILY.xattr.`), names
//! of one file (hard links), holes (GNU sparse), devices. Sockets are nobody's data and are left out, as by tar(1).

mod read;
mod write;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::acquire::WORKER;
use crate::option;
use crate::store::ARTIFACT_FILE;
use crate::volumes::{lock, unsupported};
use crate::{Error, NewVolume, Result, Volume, Volumes, copy_up, record, references};

impl Volumes {
    /// Writes a volume's content as a tar.
    ///
    /// # Errors
    /// [`Error::NotFound`]; reading or writing fails.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        record::check_name(name)?;
        let volume = self.find(name)?;
        self.with_data(&volume, |data| write::tree(data, out))
    }

    /// [`Volumes::export`] to a file.
    ///
    /// # Errors
    /// As there; the file cannot be made.
    pub fn export_file(&self, name: &str, path: &Path) -> Result<()> {
        self.find(name)?;
        let mut out = File::create(path).map_err(Error::io("create", path))?;
        self.export(name, &mut out)?;
        // A pipe has nothing to sync.
        if out.metadata().is_ok_and(|it| it.is_file()) {
            out.sync_all().map_err(Error::io("sync", path))
        } else {
            Ok(())
        }
    }

    /// [`Volumes::import`] from a file.
    ///
    /// # Errors
    /// As there; the file cannot be read.
    pub fn import_file(&self, name: &str, path: &Path, replace: bool) -> Result<Volume> {
        let mut tar = File::open(path).map_err(Error::io("open", path))?;
        self.import(name, &mut tar, replace)
    }

    /// Sends a volume as an OCI artifact: "docker://registry/name:tag", "oci:/directory:tag".
    ///
    /// # Errors
    /// As [`Volumes::export`]; the image store's.
    pub fn export_artifact(&self, name: &str, location: &str) -> Result<()> {
        self.with_stage(|stage| {
            let tar = stage.join(ARTIFACT_FILE);
            let mut out = File::create(&tar).map_err(Error::io("create", &tar))?;
            self.export(name, &mut out)?;
            self.store()?.push(location, &tar, name)
        })
    }

    /// Fills a volume from a tar, whole or not at all; one that is missing is made. A volume that has content already is
    /// left alone, unless its content is to be replaced and nobody uses it.
    ///
    /// # Errors
    /// [`Error::Archive`]; [`Error::InUse`]; [`Error::Unsupported`] for a volume whose content is not Pier's own, or not
    /// empty.
    pub fn import(&self, name: &str, tar: &mut dyn Read, replace: bool) -> Result<Volume> {
        record::check_name(name)?;
        let (volume, made) = match self.find(name) {
            Err(Error::NotFound(_)) => self.create(NewVolume { name: name.into(), ..Default::default() })?,
            found => (found?, false),
        };
        let backing = option::backing_of(&volume)?;
        if !backing.has_home() || backing.is_read_only() {
            return Err(unsupported(name, "an import", "its content is not Pier's own, or cannot be written"));
        }
        let imported = if replace { self.replace(&volume, tar) } else { self.fill(&volume, tar) };
        if imported.is_err() && made {
            self.remove(&volume.id, true)?;
        }
        imported?;
        self.get(name, false)
    }

    /// Fetches an artifact and fills a volume from it.
    ///
    /// # Errors
    /// As [`Volumes::import`]; the image store's.
    pub fn import_artifact(&self, name: &str, location: &str, replace: bool) -> Result<Volume> {
        self.with_stage(|stage| {
            self.store()?.pull(location, stage)?;
            let tar = stage.join(ARTIFACT_FILE);
            let mut file = File::open(&tar).map_err(Error::io("find in the artifact", &tar))?;
            self.import(name, &mut file, replace)
        })
    }

    fn with_stage<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let _filling = lock(&self.root.join("staging"), FlockOperation::LockShared)?;
        let stage = self.root.join("staging").join(record::random_id());
        fs::create_dir(&stage).map_err(Error::io("create", &stage))?;
        let done = work(&stage);
        fs::remove_dir_all(&stage).map_err(Error::io("remove", &stage))?;
        done
    }

    fn fill(&self, volume: &Volume, tar: &mut dyn Read) -> Result<()> {
        let home = self.home(volume, &option::backing_of(volume)?);
        let filled = self.in_use(volume, |_| {
            copy_up::fill_with(&self.directory(&volume.id), &home, |partial| read::tree(tar, partial).map(|()| true))
        })?;
        if filled { Ok(()) } else { Err(unsupported(&volume.name, "an import", "it has content; it can be replaced")) }
    }

    fn replace(&self, volume: &Volume, tar: &mut dyn Read) -> Result<()> {
        let home = self.home(volume, &option::backing_of(volume)?);
        self.in_use(volume, |_| {
            let _alone = lock(&self.directory(&volume.id), FlockOperation::LockExclusive)?;
            let consumers = self
                .references
                .read("read references", |connection| references::consumers(connection, &volume.id))?
                .into_iter()
                .filter(|consumer| !consumer.starts_with(WORKER))
                .collect::<Vec<_>>();
            if !consumers.is_empty() {
                return Err(Error::InUse { name: volume.name.clone(), consumers });
            }
            self.replace_data(volume, &home, |fresh| read::tree(tar, fresh))
        })
    }
}
