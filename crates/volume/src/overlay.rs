//! A consumer's own changes over a volume: podman's `:O`. They live below `overlays/` and go with the reference.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::view::Who;
use crate::{Error, Result, references};

/// The upper and the working directory of an overlay below the directory of its changes.
pub(crate) fn upper(changes: &Path) -> (PathBuf, PathBuf) {
    (changes.join("upper"), changes.join("work"))
}

fn directory(root: &Path, volume: &str, (consumer, target): Who<'_>) -> PathBuf {
    root.join("overlays").join(volume).join(references::mount_id(consumer, target))
}

/// The directory of a reference's changes over `lower`; made again for the same reference, the changes are still there.
pub(crate) fn make(root: &Path, volume: &str, who: Who<'_>, lower: &Path) -> Result<PathBuf> {
    let directory = directory(root, volume, who);
    let (upper, work) = upper(&directory);
    for path in [&upper, &work] {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o711).create(path).map_err(Error::io("create", path))?;
    }
    // The root of the overlay is the upper directory's: it looks as the volume's does.
    let root = fs::metadata(lower).map_err(Error::io("read", lower))?;
    std::os::unix::fs::chown(&upper, Some(root.uid()), Some(root.gid()))
        .map_err(Error::io("change the owner of", &upper))?;
    rustix::fs::chmod(&upper, rustix::fs::Mode::from_raw_mode(root.mode() & 0o7777))
        .map_err(Error::io("change the mode of", &upper))?;
    Ok(directory)
}

/// Removes what a reference had written.
pub(crate) fn remove(root: &Path, volume: &str, who: Who<'_>) -> Result<()> {
    let directory = directory(root, volume, who);
    if !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
    // The last one takes the volume's directory with it.
    let _ = fs::remove_dir(root.join("overlays").join(volume));
    Ok(())
}

/// Puts what belongs to no reference any more where it will be deleted: `held` are the volumes and mount ids in use.
pub(crate) fn sweep(root: &Path, held: &std::collections::BTreeSet<(String, String)>) {
    for volume in fs::read_dir(root.join("overlays")).into_iter().flatten().flatten() {
        let id = volume.file_name().to_string_lossy().into_owned();
        for entry in fs::read_dir(volume.path()).into_iter().flatten().flatten() {
            let mount = entry.file_name().to_string_lossy().into_owned();
            if !held.contains(&(id.clone(), mount)) {
                let _ = fs::rename(entry.path(), root.join("removing").join(crate::record::random_id()));
            }
        }
        let _ = fs::remove_dir(volume.path());
    }
}
