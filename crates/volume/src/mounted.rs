//! Volumes that are mounted on this host while somebody holds them: at `<run>/<id>`, by mount(8), once for all consumers.
//!
//! What is mounted is read from the kernel, who needs it from the database; a mount that nobody needs is taken away by
//! whoever looks next. The directory of a mount goes with it, so a consumer that comes after a reboot finds no directory
//! in its place to write to.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags};

use crate::option::{self, Backing};
use crate::references::{self, Reference};
use crate::volumes::lock;
use crate::{Error, Result, Volume, Volumes, copy_up, image_file, luks};

/// Somebody who takes a volume into use is busy with it for a moment only.
const BUSY_LOOKS: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The image file of a volume, in its directory.
pub(crate) const IMAGE: &str = "disk.img";

impl Volumes {
    pub(crate) fn mount_place(&self, id: &str) -> PathBuf {
        self.run.join(id)
    }

    /// The directory that holds a volume's `_data` (or is its data, see [`Backing::has_home`]).
    pub(crate) fn home(&self, volume: &Volume, backing: &Backing) -> PathBuf {
        match backing {
            Backing::Bind { device, .. } => device.into(),
            backing if backing.is_mounted() => self.mount_place(&volume.id),
            _ => self.directory(&volume.id),
        }
    }

    /// Where the data of a volume is, or would be if it were mounted.
    pub(crate) fn data_path(&self, volume: &Volume, backing: &Backing) -> PathBuf {
        let home = self.home(volume, backing);
        if backing.has_home() { home.join("_data") } else { home }
    }

    /// Mounts a volume unless it is; the caller holds its lock or a reference.
    pub(crate) fn ensure_mounted(&self, volume: &Volume, backing: &Backing) -> Result<()> {
        if !backing.is_mounted() {
            return Ok(());
        }
        let place = self.mount_place(&volume.id);
        let _alone = lock(&self.directory(&volume.id), FlockOperation::LockExclusive)?;
        self.mount(volume, backing, &place)
    }

    /// The caller holds the volume's lock.
    pub(crate) fn mount(&self, volume: &Volume, backing: &Backing, place: &Path) -> Result<()> {
        if is_mount(place) {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o711);
        builder.create(place).map_err(Error::io("create", place))?;
        let mounted = self.apply(volume, backing, place).and_then(|()| {
            if !backing.has_home() || backing.is_read_only() {
                return Ok(());
            }
            self.make_data(place, volume)?;
            // A copy that was interrupted.
            copy_up::finish(place)
        });
        if mounted.is_err() {
            take_away(place)?;
        }
        mounted
    }

    fn apply(&self, volume: &Volume, backing: &Backing, place: &Path) -> Result<()> {
        match backing {
            Backing::Tmpfs { options } => {
                let mut options = options.clone();
                options.extend(volume.size_limit_bytes.map(|size| format!("size={size}")));
                mount_program("tmpfs", "tmpfs", &options, place)
            }
            Backing::Image { fstype, options, key, .. } => {
                let disk = self.directory(&volume.id).join(IMAGE);
                if let Some(key) = key.as_ref().filter(|key| key.whole) {
                    let mount = |device: &Path| mount_program(fstype, &device.display().to_string(), options, place);
                    return luks::opened(&disk, key.path.as_ref(), mount);
                }
                let mut options = options.clone();
                options.push("loop".into());
                mount_program(fstype, &disk.display().to_string(), &options, place)?;
                key.as_ref().map_or(Ok(()), |key| image_file::unlock(place, key.path.as_ref()))
            }
            Backing::Filesystem { fstype, device, options } => {
                let (device, options) = option::with_address(fstype, device, options, address)?;
                mount_program(fstype, &device, &options, place)
            }
            Backing::Content { reference, pull } => self.store()?.mount(&volume.id, reference, *pull, place),
            Backing::Directory | Backing::Bind { .. } | Backing::Plugin => Ok(()),
        }
    }

    /// Unmounts a volume that nobody holds. Somebody who is busy with it for longer looks again at the end, or the next
    /// sweep does.
    pub(crate) fn unmount_unused(&self, id: &str) -> Result<()> {
        for _ in 0..BUSY_LOOKS {
            if self.try_unmount(id)? {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        Ok(())
    }

    /// `false`: somebody is busy with the volume.
    fn try_unmount(&self, id: &str) -> Result<bool> {
        self.try_unmount_all(id, &self.views_of(id))
    }

    fn try_unmount_all(&self, id: &str, views: &[String]) -> Result<bool> {
        let place = self.mount_place(id);
        if views.is_empty() && !place.exists() {
            return Ok(true);
        }
        // The directory is gone when the volume was removed: then nobody can take it into use.
        let _alone = match lock(&self.directory(id), FlockOperation::NonBlockingLockExclusive) {
            Ok(file) => Some(file),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(_) if !self.directory(id).exists() => None,
            Err(error) => return Err(error),
        };
        let held = self.references.read("read references", |connection| references::held(connection, Some(id)))?;
        let needed = |view: &str| held.iter().any(|(_, mount)| view.ends_with(mount.as_str()));
        views.iter().filter(|view| !needed(view)).try_for_each(|view| self.drop_view(view))?;
        if held.is_empty() {
            take_away(&place)?;
            luks::close(&self.directory(id));
        }
        Ok(true)
    }

    /// Takes away every mount that nobody needs.
    pub(crate) fn sweep_mounts(&self) {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(&self.run).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (id, is_view) = name.split_once('.').map_or((name.as_str(), false), |(id, _)| (id, true));
            if oci::name::is_id(id) {
                found.entry(id.to_owned()).or_default().extend(is_view.then(|| name.clone()));
            }
        }
        for (id, views) in found {
            if let Err(error) = self.try_unmount_all(&id, &views) {
                tracing::warn!(volume = %id, %error, "cannot unmount a volume that nobody uses yet");
            }
        }
    }

    /// Mounts what is held and not mounted, as after a reboot. What fails is logged: the next use tries again.
    pub fn restore_mounts(&self) {
        let held = self.references.read("read references", |connection| references::of(connection, None));
        for reference in held.unwrap_or_default() {
            let mounted = self.read_id(&reference.volume).and_then(|volume| match volume {
                // A driver outside is asked when its consumer starts.
                Some(volume) if option::backing_of(&volume)? != Backing::Plugin => self.show_again(&volume, &reference),
                _ => Ok(()),
            });
            if let Err(error) = mounted {
                tracing::warn!(volume = %reference.volume, %error, "cannot mount a volume that is in use");
            }
        }
    }

    /// Mounts what a consumer holds, should it not be: what [`Volumes::acquire`] answered holds again.
    ///
    /// # Errors
    /// A mount, or a driver.
    pub fn remount(&self, consumer: &str) -> Result<()> {
        let held = self.references.read("read references", |connection| references::of(connection, Some(consumer)))?;
        for reference in held {
            if let Some(volume) = self.read_id(&reference.volume)? {
                self.show_again(&volume, &reference)?;
            }
        }
        Ok(())
    }

    fn show_again(&self, volume: &Volume, reference: &Reference) -> Result<()> {
        let who = (reference.consumer.as_str(), reference.target.as_str());
        let mut own = self.reach(volume, &option::backing_of(volume)?, who)?;
        if reference.subpath.is_empty() && reference.map.is_empty() {
            return Ok(());
        }
        let _alone = lock(&self.directory(&volume.id), FlockOperation::LockExclusive)?;
        if !reference.subpath.is_empty() {
            own = self.pin(volume, who, &own, &reference.subpath)?;
        }
        if !reference.map.is_empty() {
            self.overlaid(volume, who, &own, &reference.map)?;
        }
        Ok(())
    }

    /// `_data` with its owner and mode, at once or not at all.
    pub(crate) fn make_data(&self, home: &Path, volume: &Volume) -> Result<()> {
        let (data, fresh) = (home.join("_data"), home.join("_data.new"));
        if data.exists() {
            return Ok(());
        }
        self.data_directory(volume, &fresh)?;
        own(&fresh, volume)?;
        fs::rename(&fresh, &data).map_err(Error::io("create", data))
    }

    /// Runs work on the data of a volume, which stays mounted for so long.
    pub(crate) fn with_data<T>(&self, volume: &Volume, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let backing = option::backing_of(volume)?;
        if let Backing::Plugin = backing {
            return self.in_use(volume, work);
        }
        let directory = self.directory(&volume.id);
        let _held = loop {
            self.ensure_mounted(volume, &backing)?;
            let held = lock(&directory, FlockOperation::LockShared)?;
            if !backing.is_mounted() || is_mount(&self.mount_place(&volume.id)) {
                break held;
            }
        };
        let done = work(&self.data_path(volume, &backing));
        drop(_held);
        self.unmount_unused(&volume.id)?;
        done
    }
}

/// Whether something is mounted at a directory.
pub(crate) fn is_mount(place: &Path) -> bool {
    match rustix::fs::statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()) {
        Ok(found) => found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        Err(_) => false,
    }
}

/// Unmounts what is mounted there, and removes the empty directory, or file, below it.
pub(crate) fn take_away(place: &Path) -> Result<()> {
    sys::mount::unmount(place).map_err(Error::io("unmount", place))?;
    let removed = match fs::remove_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(place),
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", place)(error)),
        _ => Ok(()),
    }
}

/// Gives a directory the owner and mode that the volume was made with.
pub(crate) fn own(directory: &Path, volume: &Volume) -> Result<()> {
    let (uid, gid) = (volume.uid.unwrap_or(0), volume.gid.unwrap_or(0));
    // Without root's rights only what is needed is asked for.
    if volume.uid.is_some() || volume.gid.is_some() {
        std::os::unix::fs::chown(directory, Some(uid), Some(gid))
            .map_err(Error::io("change the owner of", directory))?;
    }
    let mode = rustix::fs::Mode::from_raw_mode(volume.mode.unwrap_or(0o755));
    rustix::fs::chmod(directory, mode).map_err(Error::io("change the mode of", directory))
}

fn mount_program(fstype: &str, device: &str, options: &[String], place: &Path) -> Result<()> {
    let mut command = Command::new("mount");
    command.arg("-t").arg(fstype);
    if !options.is_empty() {
        command.arg("-o").arg(options.join(","));
    }
    run(command.arg("--").arg(device).arg(place))
}

/// Runs a program to its end; what it said on stderr is the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| Error::Program { program: program.clone(), why };
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}

/// A server's address, by getent(1): a static program cannot ask all of the host's name services itself.
fn address(host: &str) -> Result<String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.into());
    }
    let wrong = |why: &str| Error::Invalid { field: "addr", value: host.into(), why: why.into() };
    let output = Command::new("getent").args(["ahosts", host]).stdin(Stdio::null()).output();
    let output = output.map_err(|_| wrong("it is a name, and getent, which looks up names, is not installed"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| wrong("it has no address"))
}

/// Syncs the file system of a directory.
pub(crate) fn sync_filesystem(path: &Path) -> Result<()> {
    let opened = File::open(path).map_err(Error::io("open", path))?;
    rustix::fs::syncfs(&opened).map_err(Error::io("sync", path))
}
