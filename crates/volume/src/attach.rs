//! A volume on a directory of the host, for people and scripts; containers get their mounts from whoever runs them.

use std::path::{Path, PathBuf};

use crate::{Acquire, Error, Mount, Result, Volumes};

/// Mounts a volume as it is wanted (consumer and target aside) on a directory that exists. The volume is in use by `mount:<directory>` until [`detach`].
///
/// # Errors
/// As [`Volumes::acquire`]; no such directory; the mount itself. Nothing is held then.
pub fn attach(volumes: &Volumes, directory: &Path, wanted: Acquire) -> Result<Mount> {
    let directory = canonical(directory)?;
    let wanted =
        Acquire { consumer: consumer(&directory), target: directory.display().to_string(), copy_up: None, ..wanted };
    let mount = volumes.acquire(&wanted)?;
    let plan = sys::mount::Mount {
        fstype: mount.fstype.clone(),
        source: mount.source.clone().into(),
        target: PathBuf::new(),
        options: mount.options.clone(),
    };
    if let Err(source) = sys::mount::mount_one(&plan, &directory) {
        volumes.release(&wanted.consumer, Some(&wanted.name), false)?;
        return Err(Error::Io { step: "mount the volume on", path: directory, source });
    }
    Ok(mount)
}

/// Undoes [`attach`]; fine when nothing is mounted there.
///
/// # Errors
/// The kernel refuses the unmount, or the database.
pub fn detach(volumes: &Volumes, directory: &Path) -> Result<()> {
    let directory = canonical(directory)?;
    sys::mount::unmount(&directory).map_err(Error::io("unmount", &directory))?;
    volumes.release(&consumer(&directory), None, false).map(|_| ())
}

fn canonical(directory: &Path) -> Result<PathBuf> {
    directory.canonicalize().map_err(Error::io("find", directory))
}

fn consumer(directory: &Path) -> String {
    format!("{ATTACHED}{}", directory.display())
}

/// Consumers of this name are directories that a volume is mounted on by hand.
pub(crate) const ATTACHED: &str = "mount:";
