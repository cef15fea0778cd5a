//! Limits of directories by project quotas, where the file system has them (ext4 with `project,quota` mounted with
//! `prjquota`, XFS with `prjquota`).

use std::fs::File;
use std::path::Path;

use crate::{Error, Result, Volume, Volumes, names, record};

/// Projects of Pier begin here: far from those that people number by hand.
const FIRST: u32 = 0x5069_0000;

/// Whether limits of projects are enforced where the volumes are.
pub(crate) fn supported(root: &Path) -> bool {
    // Zero limits of a project that nobody uses: says no more than that it can be done.
    File::open(root).is_ok_and(|root| sys::project_quota::limit(&root, FIRST, 0).is_ok())
}

/// A project that no volume and nobody else has.
pub(crate) fn free(volumes: &Volumes) -> Result<u32> {
    let root = File::open(&volumes.root).map_err(Error::io("open", &volumes.root))?;
    let mut next = FIRST;
    for id in names::scan(&volumes.volumes())?.volumes.keys() {
        if let Ok(Some(Volume { project: Some(project), .. })) = record::read(&volumes.directory(id), id, id) {
            next = next.max(project);
        }
    }
    loop {
        next += 1;
        match sys::project_quota::usage(&root, next) {
            Ok(usage) if usage.inodes > 0 || usage.limit > 0 => {}
            _ => return Ok(next),
        }
    }
}

/// Puts a tree into a project that has a limit.
pub(crate) fn limit(tree: &Path, project: u32, bytes: u64) -> Result<()> {
    let opened = File::open(tree).map_err(Error::io("open", tree))?;
    sys::project_quota::limit(&opened, project, bytes).map_err(Error::io("limit", tree))?;
    sys::project_quota::set_project(&opened, project, true).map_err(Error::io("set the project of", tree))
}

/// Changes the limit of a project.
pub(crate) fn change(tree: &Path, project: u32, bytes: u64) -> Result<()> {
    let opened = File::open(tree).map_err(Error::io("open", tree))?;
    sys::project_quota::limit(&opened, project, bytes).map_err(Error::io("limit", tree))
}
