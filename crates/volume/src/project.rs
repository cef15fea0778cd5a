//! Limits of directories by project quotas, where the file system has them (ext4 with `-O project,quota` and XFS, both
//! mounted with `prjquota`): a data directory with a limit is a project of its own.
//!
//! Which project, the directory itself says; whether a project is somebody's, the kernel's own table. Nothing is recorded
//! elsewhere that could differ from them after a crash. Numbers are drawn, so that several roots on one file system do not
//! meet. Snapshots stand beside the data and do not count.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::thread::CapabilitySet;
use sys::project_quota::{self as quota, Usage};

use crate::volumes::{lock, unsupported};
use crate::{Error, Result, Volume, Volumes};

/// Projects of Pier are these: far from those that people number by hand.
const OURS: std::ops::Range<u32> = 0x5000_0000..0x5100_0000;

/// Whether directories here can have limits: they are enforced, we may set them, and no project of somebody else's holds
/// all that is below (nothing could be moved between two projects).
pub(crate) fn supported(root: &Path) -> bool {
    File::open(root).is_ok_and(|root| {
        quota::enforced(&root).is_ok_and(|enforced| enforced)
            && quota::usage(&root, OURS.start).is_ok()
            && quota::project(&root).is_ok_and(|project| project == 0)
    })
}

impl Volumes {
    /// An empty directory for the data of a volume, with a project of its own when that is how the volume is limited. One
    /// that is there already is taken.
    pub(crate) fn data_directory(&self, volume: &Volume, path: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", path)(error));
            }
            Err(_) => give_up(path),
            Ok(()) => {}
        }
        let Some(bytes) = volume.quota() else { return Ok(()) };
        if !supported(&self.root) {
            let why = "its limit is a project quota, and those are not enforced here: mount with prjquota";
            return Err(unsupported(&volume.name, "this", why));
        }
        // A project is somebody's as soon as a directory is in it: one process looks and takes at a time.
        let _alone = lock(&self.root, FlockOperation::LockExclusive)?;
        let opened = open(path)?;
        let project = loop {
            let drawn = rand::random_range(OURS);
            if quota::usage(&opened, drawn).map_err(Error::io("read quotas of", path))? == Usage::default() {
                break drawn;
            }
        };
        quota::set_project(&opened, project, true).map_err(Error::io("set the project of", path))?;
        quota::limit(&opened, project, bytes).map_err(Error::io("limit", path))
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io("open", path))
}

/// The project that a directory has for itself: not the one of all that is around it.
fn own(directory: &Path) -> Option<(File, u32)> {
    let opened = File::open(directory).ok()?;
    let project = quota::project(&opened).ok().filter(|project| OURS.contains(project))?;
    let around = File::open(directory.parent()?).and_then(|parent| quota::project(&parent)).ok()?;
    (around != project).then_some((opened, project))
}

/// What may be in a limited directory, and what is.
pub(crate) fn usage(directory: &Path) -> Option<Usage> {
    let (opened, project) = own(directory)?;
    quota::usage(&opened, project).ok()
}

/// Changes the limit of a directory. `false`: it has no project.
pub(crate) fn change(directory: &Path, bytes: u64) -> Result<bool> {
    let Some((opened, project)) = own(directory) else { return Ok(false) };
    quota::limit(&opened, project, bytes).map_err(Error::io("limit", directory))?;
    Ok(true)
}

/// Puts an empty directory into the project of another, so that files can be moved there.
pub(crate) fn join(directory: &Path, other: &Path) -> Result<()> {
    let Some((_, project)) = own(other) else { return Ok(()) };
    quota::set_project(&open(directory)?, project, true).map_err(Error::io("set the project of", directory))
}

/// Gives up the project of a directory that is about to be deleted: the number is free when its last file is gone.
pub(crate) fn give_up(directory: &Path) {
    if let Some((opened, project)) = own(directory)
        && let Err(error) = quota::limit(&opened, project, 0)
    {
        tracing::warn!(directory = %directory.display(), project, %error, "cannot drop the limit of a project");
    }
}

/// Runs work that fills a volume without the capability that lets root pass a limit on ext4.
pub(crate) fn within_limit<T>(work: impl FnOnce() -> T) -> T {
    let Ok(before) = rustix::thread::capabilities(None) else { return work() };
    let mut fewer = before;
    fewer.effective.remove(CapabilitySet::SYS_RESOURCE);
    let _ = rustix::thread::set_capabilities(None, fewer);
    let done = work();
    let _ = rustix::thread::set_capabilities(None, before);
    done
}
