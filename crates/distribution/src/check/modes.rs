//! Permissions of the store's own files and directories. Those of layers belong to their content.
use super::Finding;
use crate::store::{DIRS, chmod};
use crate::{Error, Result, Store};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const OTHERS_WRITE: u32 = 0o022;

pub(super) fn check(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) {
    for dir in DIRS {
        one(&store.dir(dir), 0o700, 0o755, repair, report);
    }
    one(&store.dir("store.db"), 0o600, 0o644, repair, report);
    for (digest, _) in store.content().list().unwrap_or_default() {
        one(&store.content().path(&digest), 0o400, 0o600, repair, report);
    }
}

/// The owner must have `needed`, others must not write, and it must be ours. Only what is wrong is reported: these paths are
/// no objects of their own.
fn one(path: &Path, needed: u32, right: u32, repair: bool, report: &mut impl FnMut(Finding)) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    let owner = rustix::process::geteuid().as_raw();
    let problem = if meta.uid() != owner {
        format!("it belongs to user {}, not to {owner}", meta.uid())
    } else if meta.mode() & needed != needed || meta.mode() & OTHERS_WRITE != 0 {
        format!("its mode is {:o}", meta.mode() & 0o7777)
    } else {
        return;
    };
    let fix = || -> Result<()> {
        std::os::unix::fs::lchown(path, Some(owner), None).map_err(Error::io("take", path))?;
        chmod(path, right)
    };
    report(Finding::of(path.display().to_string(), Some(problem), repair, fix));
}
