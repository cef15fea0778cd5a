//! Other data in place of a volume's, in one step; and deleting what is nobody's.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use crate::mounted::sync_filesystem;
use crate::volumes::sync_directory;
use crate::{Error, Result, Volume, Volumes, luks, project};

/// Data on its way into place, or out of it.
pub(crate) const REPLACING: &str = "restore.partial";

impl Volumes {
    /// Lets `fill` make new data in an empty directory beside `home/_data`, and exchanges the two. On failure the volume is as it
    /// was. The caller holds the volume's lock.
    pub(crate) fn replace_data(
        &self,
        volume: &Volume,
        home: &Path,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let fresh = home.join(REPLACING);
        discard(&fresh)?;
        let placed = self.data_directory(volume, &fresh).and_then(|()| {
            project::within_limit(|| fill(&fresh))?;
            sync_filesystem(&fresh)?;
            rustix::fs::renameat_with(CWD, &fresh, CWD, home.join("_data"), RenameFlags::EXCHANGE)
                .map_err(Error::io("place", &fresh))?;
            sync_directory(home)
        });
        // What was there before, or what came of a failure.
        placed.and(discard(&fresh))
    }
}

/// Deletes a file or a tree, and gives up what the kernel keeps for data in it. Nothing there is fine.
pub(crate) fn discard(path: &Path) -> Result<()> {
    luks::close(path);
    project::give_up(path);
    for data in ["_data", "_data.new", REPLACING] {
        project::give_up(&path.join(data));
    }
    let deleted = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match deleted {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("delete", path)(error)),
        _ => Ok(()),
    }
}
