//! Records on disk: directories of containers, names, locks.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use oci::shim::ExitRecord;
use statedir::{Lock, atomic_write, read_json, sync_dir, write_json};

use crate::definition::{Definition, InjectedFile};
use crate::error::Error;
use crate::status::State;

const FORMAT: u32 = 1;
/// Prefix of directories that are not whole yet.
const STAGE: &str = ".new-";

/// Paths of one root.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
}

/// The right to change one container.
pub(crate) struct Writer {
    _lock: Lock,
}

impl Store {
    pub(crate) fn open(root: &Path, run: &Path) -> Result<Self, Error> {
        let store = Self { root: root.to_owned(), run: run.to_owned() };
        for dir in [store.containers(), store.names(), store.root.join("events"), store.shims(), store.runtime_root()] {
            make_dir(&dir)?;
        }
        for dir in [root, run] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(Error::file("chmod", dir))?;
        }
        Ok(store)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(crate) fn shims(&self) -> PathBuf {
        self.run.join("shims")
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.run.join("runtime")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("events").join("journal")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.run.join(id)
    }

    pub(crate) fn presence(&self, id: &str) -> PathBuf {
        self.shims().join(id)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.container(id).join("log").join("container.log")
    }

    /// Full ids, in no order.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Error> {
        let dir = self.containers();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))? {
            let name = entry.map_err(Error::file("list", &dir))?.file_name();
            ids.extend(name.to_str().filter(|name| oci::name::is_id(name)).map(str::to_owned));
        }
        Ok(ids)
    }

    /// Full id of an id, a name, or a unique prefix of an id; in this order.
    pub(crate) fn resolve(&self, reference: &str) -> Result<String, Error> {
        let missing = || Error::NotFound(reference.to_owned());
        if oci::name::is_id(reference) {
            return if self.container(reference).is_dir() { Ok(reference.to_owned()) } else { Err(missing()) };
        }
        if !oci::name::is_valid(reference) {
            return Err(missing());
        }
        if let Some(id) = self.owner_of(reference)
            && self.container(&id).is_dir()
        {
            return Ok(id);
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.starts_with(reference));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(reference.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    fn owner_of(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.names().join(name)).ok().filter(|id| oci::name::is_id(id))
    }

    /// Waits for the right to change a container.
    pub(crate) fn lock(&self, id: &str) -> Result<Writer, Error> {
        let dir = self.container(id);
        if !dir.is_dir() {
            return Err(Error::NotFound(id.to_owned()));
        }
        let lock = Lock::acquire(&dir.join("lock")).map_err(|error| {
            if error.is_not_found() { Error::NotFound(id.to_owned()) } else { Error::record(id)(error) }
        })?;
        // Its owner may have removed it while this one waited.
        if !dir.join("lock").exists() {
            return Err(Error::NotFound(id.to_owned()));
        }
        Ok(Writer { _lock: lock })
    }

    pub(crate) fn definition(&self, id: &str) -> Result<Definition, Error> {
        read_json(&self.container(id).join("spec.json"), FORMAT).map_err(|error| {
            if error.is_not_found() && !self.container(id).is_dir() {
                Error::NotFound(id.to_owned())
            } else {
                Error::record(id)(error)
            }
        })
    }

    pub(crate) fn write_definition(&self, definition: &Definition) -> Result<(), Error> {
        let id = &definition.id;
        write_json(&self.container(id).join("spec.json"), FORMAT, definition).map_err(Error::record(id))
    }

    pub(crate) fn state(&self, id: &str) -> Result<State, Error> {
        match read_json(&self.container(id).join("state.json"), FORMAT) {
            Ok(state) => Ok(state),
            Err(error) if error.is_not_found() && self.container(id).is_dir() => Ok(State::default()),
            Err(error) if error.is_not_found() => Err(Error::NotFound(id.to_owned())),
            Err(error) => Err(Error::record(id)(error)),
        }
    }

    pub(crate) fn write_state(&self, id: &str, state: &State) -> Result<(), Error> {
        write_json(&self.container(id).join("state.json"), FORMAT, state).map_err(Error::record(id))
    }

    pub(crate) fn exit(&self, id: &str) -> Result<Option<ExitRecord>, Error> {
        match read_json(&self.container(id).join("exit.json"), FORMAT) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Error::record(id)(error)),
        }
    }

    pub(crate) fn write_exit(&self, id: &str, record: &ExitRecord) -> Result<(), Error> {
        write_json(&self.container(id).join("exit.json"), FORMAT, record).map_err(Error::record(id))
    }

    /// Makes the record: staged under a lock, name reserved, renamed into place. All or nothing.
    pub(crate) fn create(&self, definition: &Definition, oci: &[u8], files: &[InjectedFile]) -> Result<(), Error> {
        let id = &definition.id;
        if self.container(id).exists() {
            return Err(Error::IdTaken(id.clone()));
        }
        let stage = self.containers().join(format!("{STAGE}{id}"));
        make_dir(&stage)?;
        let lock = Lock::try_acquire(&stage.join("lock")).map_err(Error::record(id))?;
        let Some(_lock) = lock else { return Err(Error::IdTaken(id.clone())) };
        let result = self.fill(&stage, definition, oci, files).and_then(|()| {
            self.reserve(&definition.name, id)?;
            fs::rename(&stage, self.container(id)).map_err(Error::file("rename", &stage)).inspect_err(|_| {
                self.release(&definition.name, id);
            })
        });
        if result.is_err() {
            let _ = fs::remove_dir_all(&stage);
        }
        result?;
        sync_dir(&self.containers()).map_err(Error::record(id))
    }

    fn fill(&self, stage: &Path, definition: &Definition, oci: &[u8], files: &[InjectedFile]) -> Result<(), Error> {
        let record = Error::record;
        let id = &definition.id;
        atomic_write(&stage.join("oci.json"), oci, 0o600).map_err(record(id))?;
        make_dir(&stage.join("log"))?;
        make_dir(&stage.join("files"))?;
        for (number, file) in files.iter().enumerate() {
            write_injected(&stage.join("files").join(number.to_string()), file)?;
        }
        write_json(&stage.join("spec.json"), FORMAT, definition).map_err(record(id))
    }

    /// Reserves a name with link(2): one winner. A name whose owner is gone is taken over.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), Error> {
        let path = self.names().join(name);
        let stage = self.names().join(format!(".{id}"));
        fs::write(&stage, id).map_err(Error::file("write", &stage))?;
        let mut result = Ok(());
        for _ in 0..3 {
            result = match fs::hard_link(&stage, &path) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let owner = self.owner_of(name).unwrap_or_default();
                    if owner == id {
                        Ok(())
                    } else if self.is_abandoned(name, &owner) {
                        let _ = fs::remove_file(&path);
                        Err(Error::NameTaken { name: name.to_owned(), id: owner })
                    } else {
                        Err(Error::NameTaken { name: name.to_owned(), id: owner })
                    }
                }
                Err(error) => Err(Error::File { step: "reserve", path: path.clone(), source: error }),
            };
            if result.is_ok() || path.exists() {
                break;
            }
        }
        let _ = fs::remove_file(&stage);
        result?;
        sync_dir(&self.names()).map_err(Error::record(id))
    }

    /// Whether nobody owns or is about to own `name` for `id`: the record is gone (or named otherwise) and no one is
    /// making it.
    fn is_abandoned(&self, name: &str, id: &str) -> bool {
        if !oci::name::is_id(id) {
            return true;
        }
        let stage = self.containers().join(format!("{STAGE}{id}"));
        let dir = [stage, self.container(id)].into_iter().find(|dir| dir.is_dir());
        let Some(dir) = dir else { return true };
        let Ok(Some(_lock)) = Lock::try_acquire(&dir.join("lock")) else { return false };
        // Not being changed by anybody: what spec.json says holds. A damaged one keeps its name.
        match read_json::<Definition>(&self.container(id).join("spec.json"), FORMAT) {
            Ok(definition) => definition.name != name,
            Err(error) => error.is_not_found() && !self.container(id).is_dir(),
        }
    }

    pub(crate) fn release(&self, name: &str, id: &str) {
        if self.owner_of(name).as_deref() == Some(id) {
            let _ = fs::remove_file(self.names().join(name));
        }
    }

    /// Names by id: for records that cannot be read.
    pub(crate) fn name_of(&self, id: &str) -> Option<String> {
        let entries = fs::read_dir(self.names()).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            (self.owner_of(&name).as_deref() == Some(id)).then_some(name)
        })
    }

    /// Removes everything of a container. The caller holds its lock and its shim is gone.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        if let Ok(definition) = self.definition(id) {
            self.release(&definition.name, id);
        } else if let Some(name) = self.name_of(id) {
            self.release(&name, id);
        }
        let _ = fs::remove_file(self.presence(id));
        let _ = fs::remove_dir_all(self.run_dir(id));
        statedir::remove_dir_durable(&self.container(id)).map_err(Error::record(id))
    }

    /// Removes what dead creations and removals left, and names without an owner.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let dir = self.containers();
        for entry in fs::read_dir(&dir).map_err(Error::file("list", &dir))?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let staged = name.starts_with(STAGE);
            if !staged && !name.ends_with(".trash") {
                continue;
            }
            let free = !staged || matches!(Lock::try_acquire(&entry.path().join("lock")), Ok(Some(_)));
            if free {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let names = self.names();
        for entry in fs::read_dir(&names).map_err(Error::file("list", &names))?.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.')
                && let Some(owner) = self.owner_of(&name)
                && self.is_abandoned(&name, &owner)
            {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Replaces injected files of the same target, adds the others; `true` when the definition changed.
    pub(crate) fn inject(&self, definition: &mut Definition, files: &[InjectedFile]) -> Result<bool, Error> {
        let mut changed = false;
        for file in files {
            let known = definition.files.iter().position(|(target, _)| *target == file.target);
            let number = known.unwrap_or(definition.files.len());
            write_injected(&self.container(&definition.id).join("files").join(number.to_string()), file)?;
            if known.is_none() {
                definition.files.push((file.target.clone(), file.mode));
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// Written to the side and renamed: a container that has the old one mounted keeps it whole.
fn write_injected(path: &Path, file: &InjectedFile) -> Result<(), Error> {
    use std::io::Write as _;
    let mode = if file.mode == 0 { 0o644 } else { file.mode & 0o7777 };
    let stage = path.with_extension("new");
    let write = || {
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&stage)?;
        out.write_all(&file.content)?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&stage, path)
    };
    write().map_err(Error::file("write", path))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(Error::file("chmod", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store(name: &str) -> (PathBuf, Store) {
        let dir = std::env::temp_dir().join(format!("pier-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let store = Store::open(&dir.join("root"), &dir.join("run")).unwrap();
        (dir, store)
    }

    fn definition(digit: char, name: &str) -> Definition {
        Definition { id: digit.to_string().repeat(64), name: name.into(), ..Definition::default() }
    }

    #[test]
    fn names_have_one_owner_and_are_released() {
        let (dir, store) = store("names");
        store.create(&definition('a', "web"), b"{}", &[]).unwrap();
        let taken = store.create(&definition('b', "web"), b"{}", &[]);
        assert!(matches!(taken, Err(Error::NameTaken { .. })), "{taken:?}");
        assert_eq!(store.ids().unwrap(), ["a".repeat(64)], "nothing half made is left");
        assert_eq!(store.resolve("web").unwrap(), "a".repeat(64));
        assert_eq!(store.resolve("aaa").unwrap(), "a".repeat(64));
        store.remove(&"a".repeat(64)).unwrap();
        store.create(&definition('b', "web"), b"{}", &[]).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_name_whose_owner_died_is_free_again() {
        let (dir, store) = store("abandoned");
        // Killed between the reservation and the rename.
        let id = "c".repeat(64);
        store.reserve("web", &id).unwrap();
        fs::create_dir(store.containers().join(format!("{STAGE}{id}"))).unwrap();
        store.create(&definition('d', "web"), b"{}", &[]).unwrap();
        // Killed between the two halves of a rename.
        store.reserve("other", &"d".repeat(64)).unwrap();
        store.sweep().unwrap();
        assert!(!store.names().join("other").exists());
        assert!(store.names().join("web").exists());
        assert_eq!(fs::read_dir(store.containers()).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn many_creators_of_one_name_have_one_winner() {
        let (dir, store) = store("race");
        let winners = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for digit in ['1', '2', '3', '4', '5', '6', '7', '8'] {
                let (store, winners) = (&store, &winners);
                scope.spawn(move || {
                    if store.create(&definition(digit, "web"), b"{}", &[]).is_ok() {
                        winners.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
        assert_eq!(store.ids().unwrap().len(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
