//! Making, finding and listing volumes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags};

use crate::references::{self, References};
use crate::{Error, Event, Filters, NewVolume, Result, Volume, event, option, record, remove, size};

/// All volumes of one root. Cheap to open; several may be open on one root, in any processes.
pub struct Volumes {
    pub(crate) root: PathBuf,
    pub(crate) references: References,
}

/// What a listing found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by name.
    pub volumes: Vec<Volume>,
    /// Damaged records, one line each; their data is untouched.
    pub warnings: Vec<String>,
}

impl Volumes {
    /// Opens (and at first makes) the volumes below a directory, and finishes what a killed process left half done.
    ///
    /// # Errors
    /// The directories or the database cannot be made or read.
    pub fn open(root: &Path) -> Result<Self> {
        for directory in [root.to_owned(), root.join("volumes"), root.join("staging"), root.join("removing")] {
            // 0711: a container's user may have to walk through to its data, and must not list what else there is.
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o711);
            builder.create(&directory).map_err(Error::io("create", directory))?;
        }
        let references = References::open(&root.join("volume.db"))?;
        let volumes = Self { root: root.into(), references };
        remove::sweep(&volumes.root);
        Ok(volumes)
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// Makes a volume, or finds the one of that name made with the same driver and options (its labels stay as they
    /// are). The second value says whether it is new.
    ///
    /// # Errors
    /// Bad name, driver or options; [`Error::Conflict`] when the name is taken by a different volume.
    pub fn create(&self, wanted: NewVolume) -> Result<(Volume, bool)> {
        let driver = if wanted.driver.is_empty() { record::LOCAL } else { &wanted.driver };
        if driver != record::LOCAL {
            return Err(Error::UnknownDriver(driver.into()));
        }
        option::backing(&wanted.options)?;
        let anonymous = wanted.name.is_empty();
        let name = if anonymous { record::random_name() } else { wanted.name };
        record::check_name(&name)?;
        if let Some(there) = self.existing(&name, driver, &wanted.options)? {
            return Ok((there, false));
        }
        let volume = Volume {
            mountpoint: self.directory(&name).join("_data"),
            driver: driver.into(),
            options: wanted.options,
            labels: wanted.labels,
            created_at: jiff::Timestamp::now().to_string(),
            anonymous,
            consumers: Vec::new(),
            size_bytes: None,
            name,
        };
        if self.place(&volume)? {
            return Ok((volume, true));
        }
        // Another process was first; the two agree or they do not.
        match self.existing(&volume.name, &volume.driver, &volume.options)? {
            Some(there) => Ok((there, false)),
            None => Err(Error::NotFound(volume.name)),
        }
    }

    fn existing(&self, name: &str, driver: &str, options: &BTreeMap<String, String>) -> Result<Option<Volume>> {
        let Some(there) = record::read(&self.directory(name), name)? else { return Ok(None) };
        let conflict = |field| Error::Conflict { name: name.into(), field };
        if there.driver != driver {
            return Err(conflict("driver"));
        }
        if there.options != *options {
            return Err(conflict("options"));
        }
        self.with_consumers(there).map(Some)
    }

    /// Stages the volume's directory and moves it into place: true unless the name was taken meanwhile.
    fn place(&self, volume: &Volume) -> Result<bool> {
        // Shared with other makers; the sweep wants it alone, so it never takes a stage that is being filled.
        let _filling = lock(&self.root.join("staging"), FlockOperation::LockShared)?;
        let staged = self.root.join("staging").join(record::random_name());
        let made = self.stage(volume, &staged).and_then(|()| {
            self.references.write("record a creation", |transaction| {
                let target = self.directory(&volume.name);
                match rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &staged,
                    rustix::fs::CWD,
                    &target,
                    RenameFlags::NOREPLACE,
                ) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::EXIST) => return Ok(false),
                    Err(error) => return Err(Error::io("make", target)(error).into()),
                }
                event::append(transaction, "create", &volume.name, &described(volume))?;
                Ok(true)
            })
        });
        if !matches!(made, Ok(true)) {
            let _ = fs::remove_dir_all(&staged);
        }
        sync_directory(&self.root.join("volumes"))?;
        made
    }

    fn stage(&self, volume: &Volume, staged: &Path) -> Result<()> {
        let make = |path: &Path, mode| DirBuilder::new().mode(mode).create(path).map_err(Error::io("create", path));
        make(staged, 0o711)?;
        make(&staged.join("_data"), 0o755)?;
        record::write(staged, volume)?;
        sync_directory(staged)
    }

    /// One volume.
    ///
    /// # Errors
    /// [`Error::NotFound`], or a damaged record.
    pub fn get(&self, name: &str, with_size: bool) -> Result<Volume> {
        record::check_name(name)?;
        let volume = record::read(&self.directory(name), name)?.ok_or_else(|| Error::NotFound(name.into()))?;
        let mut volume = self.with_consumers(volume)?;
        if with_size {
            volume.size_bytes = Some(size::of_tree(&volume.mountpoint)?);
        }
        Ok(volume)
    }

    fn with_consumers(&self, volume: Volume) -> Result<Volume> {
        let consumers =
            self.references.read("read references", |connection| references::consumers(connection, &volume.name))?;
        Ok(Volume { consumers, ..volume })
    }

    /// The volumes that pass the filters; a damaged record is a warning.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn list(&self, filters: &Filters, with_size: bool) -> Result<Listing> {
        let directory = self.root.join("volumes");
        let mut consumers = self.references.all()?;
        let mut listing = Listing::default();
        for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match record::read(&entry.path(), &name) {
                Ok(None) => {}
                Ok(Some(volume)) => {
                    let mut volume = Volume { consumers: consumers.remove(&volume.name).unwrap_or_default(), ..volume };
                    if filters.admit(&volume) {
                        if with_size {
                            volume.size_bytes = Some(size::of_tree(&volume.mountpoint)?);
                        }
                        listing.volumes.push(volume);
                    }
                }
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
