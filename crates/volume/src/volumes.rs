//! Making, finding and listing volumes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::mounted::{self, IMAGE};
use crate::option::{self, Backing};
use crate::references::{self, References};
use crate::replace::discard;
use crate::store::Store;
use crate::{
    Error, Event, Filters, NewVolume, Result, Volume, event, image_file, names, plugin, project, record, remove, size,
};

/// All volumes of one root. Cheap to open; several may be open on one root, in any processes.
pub struct Volumes {
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) references: References,
    pub(crate) store: Option<Store>,
    pub(crate) plugins: Vec<PathBuf>,
    pub(crate) driver_limit: Duration,
}

/// How long a driver may take to answer, unless it is said otherwise.
const DRIVER_LIMIT: Duration = Duration::from_secs(20);

/// What a listing found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by name.
    pub volumes: Vec<Volume>,
    /// Damaged records, and sizes that could not be counted, one line each.
    pub warnings: Vec<String>,
}

impl Volumes {
    /// Opens (and at first makes) the volumes below a directory, and finishes what a killed process left half done.
    /// Below `run` stand the mounts of volumes in use.
    ///
    /// # Errors
    /// The directories or the database cannot be made or read.
    pub fn open(root: &Path, run: &Path) -> Result<Self> {
        let below = ["volumes", "staging", "removing"].map(|name| root.join(name));
        for directory in [root.to_owned()].iter().chain(&below).chain([&run.to_owned()]) {
            // 0711: a container's user may have to walk through to its data, and must not list what else there is.
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o711);
            builder.create(directory).map_err(Error::io("create", directory))?;
        }
        let run = run.canonicalize().map_err(Error::io("find", run))?;
        let references = References::open(&root.join("volume.db"))?;
        let volumes = Self {
            root: root.into(),
            run,
            references,
            store: None,
            plugins: plugin::directories(),
            driver_limit: DRIVER_LIMIT,
        };
        volumes.migrate()?;
        remove::sweep(&volumes);
        Ok(volumes)
    }

    /// Knows where images are, for volumes that show one and for artifacts: `--root` and `--run` of the image store.
    #[must_use]
    pub fn with_store(mut self, root: &Path, run: &Path) -> Self {
        self.store = Some(Store::new(root, run));
        self
    }

    /// Looks for drivers here first, and gives each so long to answer. Gives back what processes held that were killed.
    #[must_use]
    pub fn with_plugins(mut self, directory: PathBuf, limit: Duration) -> Self {
        self.plugins.insert(0, directory);
        self.driver_limit = limit;
        remove::drop_dead_workers(&self);
        self
    }

    pub(crate) fn store(&self) -> Result<&Store> {
        let why = "no image store is known here".into();
        self.store.as_ref().ok_or(Error::Invalid { field: "driver", value: "image".into(), why })
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.root.join("volumes").join(id)
    }

    /// Gives ids to the volumes of before there were any. Done again after a crash, it goes on.
    fn migrate(&self) -> Result<()> {
        let volumes = self.volumes();
        let named = self.references.read("read references", references::any_by_name)?;
        if !named && names::scan(&volumes)?.old.is_empty() {
            return Ok(());
        }
        self.references.write("give ids", |transaction| {
            for name in names::scan(&volumes)?.old {
                names::migrate(&volumes, &name, &record::random_id())?;
            }
            references::by_id(transaction, |name| names::resolve(&volumes, name).ok().flatten()).map_err(Into::into)
        })?;
        sync_directory(&volumes)
    }

    /// Makes a volume, or finds the one of that name made with the same driver, options and limit (its labels stay as
    /// they are). The second value says whether it is new.
    ///
    /// # Errors
    /// Bad name, driver or options; [`Error::Conflict`] when the name is taken by a different volume.
    pub fn create(&self, wanted: NewVolume) -> Result<(Volume, bool)> {
        let wanted = option::settled(wanted)?;
        let backing = option::backing(&wanted.driver, &wanted.options)?;
        if !wanted.name.is_empty() {
            record::check_name(&wanted.name)?;
            if let Some(there) = self.existing(&wanted)? {
                return Ok((there, false));
            }
        }
        let volume = self.plan(wanted, &backing)?;
        if let Backing::Plugin = backing {
            plugin::create(self, &volume)?;
        }
        let made = self.place(&volume, |staged| self.fill_new(staged, &volume, &backing))?;
        if made {
            return Ok((self.with_place(volume)?, true));
        }
        // Another process was first; the two agree or they do not.
        let wanted = NewVolume {
            name: volume.name.clone(),
            driver: volume.driver,
            options: volume.options,
            size_bytes: volume.size_limit_bytes,
            ..Default::default()
        };
        self.existing(&wanted)?.map(|there| (there, false)).ok_or(Error::NotFound(volume.name))
    }

    /// What will be recorded of a new volume.
    fn plan(&self, wanted: NewVolume, backing: &Backing) -> Result<Volume> {
        let anonymous = wanted.name.is_empty();
        let id = if oci::name::is_id(&wanted.name) { wanted.name.clone() } else { record::random_id() };
        let mut volume = Volume {
            name: if anonymous { id.clone() } else { wanted.name },
            id,
            driver: wanted.driver,
            options: wanted.options,
            labels: wanted.labels,
            created_at: jiff::Timestamp::now().to_string(),
            anonymous,
            size_limit_bytes: wanted.size_bytes,
            uid: wanted.uid,
            gid: wanted.gid,
            mode: wanted.mode,
            ..Default::default()
        };
        match backing {
            Backing::Image { fstype, .. } => volume.image = Some(fstype.clone()),
            Backing::Directory if volume.size_limit_bytes.is_some() => {
                volume.image = (!project::supported(&self.root)).then(|| "ext4".into());
            }
            Backing::Plugin => volume.driver_name = Some(volume.name.clone()),
            Backing::Tmpfs { .. } | Backing::Directory => {}
            _ if volume.size_limit_bytes.is_some() => {
                return Err(unsupported(&volume.name, "a size", "what it shows is limited elsewhere"));
            }
            _ => {}
        }
        let owned = volume.uid.is_some() || volume.gid.is_some() || volume.mode.is_some();
        if owned && !backing.has_home() {
            return Err(unsupported(&volume.name, "an owner or a mode", "its root directory is not Pier's own"));
        }
        Ok(volume)
    }

    fn fill_new(&self, staged: &Path, volume: &Volume, backing: &Backing) -> Result<()> {
        if let Some(fstype) = &volume.image {
            let (from, key) = match backing {
                Backing::Image { from, key, .. } => (from.as_deref(), key.as_ref()),
                _ => (None, None),
            };
            if let Some(key) = key {
                fs::metadata(&key.path).map_err(Error::io("find the encryption key", &key.path))?;
            }
            return image_file::make(&staged.join(IMAGE), fstype, volume.size_limit_bytes, from, key);
        }
        if matches!(backing, Backing::Directory) { self.make_data(staged, volume) } else { Ok(()) }
    }

    fn existing(&self, wanted: &NewVolume) -> Result<Option<Volume>> {
        let Some(there) = self.look(&wanted.name)? else { return Ok(None) };
        let conflict = |field| Err(Error::Conflict { name: wanted.name.clone(), field });
        if there.driver != wanted.driver {
            return conflict("driver");
        }
        if there.options != wanted.options {
            return conflict("options");
        }
        if wanted.size_bytes.is_some() && there.size_limit_bytes != wanted.size_bytes {
            return conflict("size");
        }
        self.complete(there).map(Some)
    }

    /// Stages the volume's directory and moves it into place: true unless the name was taken meanwhile.
    pub(crate) fn place(&self, volume: &Volume, fill: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
        // Shared with other makers; the sweep wants it alone, so it never takes a stage that is being filled.
        let _filling = lock(&self.root.join("staging"), FlockOperation::LockShared)?;
        let staged = self.root.join("staging").join(record::random_id());
        let made = self.stage(volume, &staged, fill).and_then(|()| {
            self.references.write("record a creation", |transaction| {
                if self.look(&volume.name)?.is_some() {
                    return Ok(false);
                }
                if volume.name != volume.id && !names::take(&self.volumes(), &volume.name, &volume.id)? {
                    return Ok(false);
                }
                let target = self.directory(&volume.id);
                fs::rename(&staged, &target).map_err(Error::io("make", target))?;
                event::append(transaction, "create", &volume.name, &described(volume))?;
                Ok(true)
            })
        });
        if !matches!(made, Ok(true)) {
            let _ = discard(&staged);
        }
        sync_directory(&self.volumes())?;
        made
    }

    fn stage(&self, volume: &Volume, staged: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        DirBuilder::new().mode(0o711).create(staged).map_err(Error::io("create", staged))?;
        fill(staged)?;
        record::write(staged, volume)
    }

    /// One volume, by its name or id.
    ///
    /// # Errors
    /// [`Error::NotFound`], or a damaged record.
    pub fn get(&self, name: &str, with_size: bool) -> Result<Volume> {
        record::check_name(name)?;
        let mut volume = self.complete(self.find(name)?)?;
        if with_size {
            volume.size_bytes = Some(self.used(&volume)?);
        }
        if option::backing_of(&volume)? == Backing::Plugin {
            volume.status = plugin::status(self, &volume);
        }
        Ok(volume)
    }

    /// Bytes that a volume takes on disk: of an image file what is filled of it.
    pub(crate) fn used(&self, volume: &Volume) -> Result<u64> {
        match option::backing_of(volume)? {
            Backing::Directory => {
                let data = self.directory(&volume.id).join("_data");
                project::usage(&data).map_or_else(|| size::of_tree(&data), |usage| Ok(usage.used))
            }
            Backing::Image { .. } => size::of_file(&self.directory(&volume.id).join(IMAGE)),
            Backing::Bind { device, .. } => size::of_tree(device.as_ref()),
            backing if backing.is_mounted() => {
                let place = self.mount_place(&volume.id);
                if mounted::is_mount(&place) { size::of_tree(&place) } else { Ok(0) }
            }
            _ => Ok(0),
        }
    }

    /// The record of a name or id, as it is on disk.
    pub(crate) fn find(&self, name: &str) -> Result<Volume> {
        self.look(name)?.ok_or_else(|| Error::NotFound(name.into()))
    }

    pub(crate) fn look(&self, name: &str) -> Result<Option<Volume>> {
        let Some(id) = names::resolve(&self.volumes(), name)? else { return Ok(None) };
        let Some(mut volume) = record::read(&self.directory(&id), &id, name)? else { return Ok(None) };
        if name != id {
            volume.name = name.into();
        } else if volume.name != id {
            // By the id of a volume that has a name.
            volume.name = names::of(&self.volumes(), &id)?;
        }
        Ok(Some(volume))
    }

    pub(crate) fn read_id(&self, id: &str) -> Result<Option<Volume>> {
        if oci::name::is_id(id) { self.look(id) } else { Ok(None) }
    }

    fn complete(&self, volume: Volume) -> Result<Volume> {
        let consumers =
            self.references.read("read references", |connection| references::consumers(connection, &volume.id))?;
        self.with_place(Volume { consumers, ..volume })
    }

    pub(crate) fn with_place(&self, volume: Volume) -> Result<Volume> {
        let mountpoint = match option::backing_of(&volume)? {
            Backing::Plugin => PathBuf::new(),
            backing => self.data_path(&volume, &backing),
        };
        Ok(Volume { mountpoint, ..volume })
    }

    /// The volumes that pass the filters; a damaged record is a warning, and so is a size that cannot be counted.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn list(&self, filters: &Filters, with_size: bool) -> Result<Listing> {
        let mut consumers = self.references.all()?;
        let mut listing = Listing::default();
        for (id, name) in names::scan(&self.volumes())?.volumes {
            let read = record::read(&self.directory(&id), &id, &name).and_then(|volume| {
                let consumers = consumers.remove(&id).unwrap_or_default();
                volume.map(|volume| self.with_place(Volume { name: name.clone(), consumers, ..volume })).transpose()
            });
            match read {
                Ok(None) => {}
                Ok(Some(mut volume)) if filters.admit(&volume) => {
                    if with_size {
                        let used = self.used(&volume).map_err(|error| listing.warnings.push(error.to_string()));
                        volume.size_bytes = used.ok();
                    }
                    listing.volumes.push(volume);
                }
                Ok(Some(_)) => {}
                Err(error) => listing.warnings.push(error.to_string()),
            }
        }
        listing.volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listing)
    }

    /// Events after a sequence number, oldest first; the last few thousand are kept.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events_after(&self, sequence: i64) -> Result<Vec<Event>> {
        self.references.read("read events", |connection| event::after(connection, sequence))
    }

    /// Sequence number of the latest event, 0 when there was none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last_event(&self) -> Result<i64> {
        self.references.read("read events", event::last_sequence)
    }
}

pub(crate) fn unsupported(name: &str, what: &'static str, why: &str) -> Error {
    Error::Unsupported { name: name.into(), what, why: why.into() }
}

/// Attributes of a volume's event.
pub(crate) fn described(volume: &Volume) -> BTreeMap<String, String> {
    let mut attributes = volume.labels.clone();
    attributes.insert("driver".into(), volume.driver.clone());
    attributes
}

pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

/// Locks a directory for as long as the returned file lives.
pub(crate) fn lock(directory: &Path, operation: FlockOperation) -> Result<File> {
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    rustix::fs::flock(&file, operation).map_err(Error::io("lock", directory))?;
    Ok(file)
}
