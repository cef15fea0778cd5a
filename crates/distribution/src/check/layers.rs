//! Unpacked layers against what their blobs unpack to.
use super::{Finding, tree};
use crate::layer::volatile::blobs;
use crate::layer::{Row, rows, sync_filesystem};
use crate::snapshot::erofs;
use crate::store::sync_dir;
use crate::{Error, Result, Store};
use oci::Descriptor;
use rustix::fs::{CWD, RenameFlags};
use std::os::fd::AsRawFd as _;

pub(super) fn check(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    let blobs = blobs(store)?;
    for row in store.db().look(rows)? {
        let object = format!("layer {}", row.diff_id);
        let finding = match one(store, &row, blobs.get(&row.diff_id), repair) {
            Ok(Some((problem, repaired))) => Finding::damaged(object, problem, repaired),
            Ok(None) => Finding::sound(object),
            Err(error) if error.is_full() => {
                tracing::warn!(layer = %row.diff_id, "not compared: there is no room to unpack it once more");
                Finding::sound(object)
            }
            Err(error) => Finding::damaged(object, format!("cannot be compared: {error}"), false),
        };
        report(finding);
        if let Some(problem) = image(store, &row)? {
            let object = format!("erofs image of layer {}", row.diff_id);
            let path = erofs::beside(&store.layers().fs(row.id));
            report(Finding::of(object, Some(problem), repair, || store.set_aside(&path)));
        }
    }
    Ok(())
}

/// What is wrong with a layer's erofs image, compared with its directory. One that is set aside is made again when a snapshot
/// needs it.
fn image(store: &Store, row: &Row) -> Result<Option<String>> {
    let fs = store.layers().fs(row.id);
    let path = erofs::beside(&fs);
    if !path.is_file() || !fs.is_dir() {
        return Ok(None);
    }
    if !store.can("erofs") {
        tracing::warn!(path = %path.display(), "not compared: erofs images cannot be mounted here");
        return Ok(None);
    }
    let mounted = match sys::mount::erofs_image(&path) {
        Ok(mounted) => mounted,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let root = std::path::PathBuf::from(format!("/proc/self/fd/{}/.", mounted.as_raw_fd()));
    Ok(match tree::differences(&fs, &root, row, store.marks()) {
        Ok(found) => found,
        Err(error) => Some(format!("cannot be read: {error}")),
    })
}

fn one(store: &Store, row: &Row, blob: Option<&Descriptor>, repair: bool) -> Result<Option<(String, bool)>> {
    let there = store.layers().fs(row.id).is_dir();
    let Some(blob) = blob else {
        // Its row stays, snapshots refer to it; the next pull gives it a directory again, as nothing finds it here.
        return Ok((!there).then(|| ("its directory is missing".to_owned(), repair)));
    };
    let file = store.content().open(&blob.digest)?;
    let (staging, fresh) = store.layers().unpack_again(file, blob)?;
    if fresh.diff_id != row.diff_id {
        let problem = format!("its blob {} unpacks to {}", blob.digest, fresh.diff_id);
        return Ok(Some((problem, false)));
    }
    let problem = match there {
        true => tree::differences(&staging.path().join("fs"), &store.layers().fs(row.id), &fresh, store.marks())?,
        false => Some("its directory is missing".into()),
    };
    let Some(problem) = problem else { return Ok(None) };
    if repair {
        replace(store, row, staging.path())?;
        // What was copied from it may be as damaged.
        crate::snapshot::sweep_chains(store, Some(&row.diff_id))?;
    }
    Ok(Some((problem, repair)))
}

/// The fresh tree takes the layer's place in one step, and the damaged one, which containers may have mounted, is set aside.
fn replace(store: &Store, row: &Row, staging: &std::path::Path) -> Result<()> {
    sync_filesystem(staging)?;
    let home = store.layers().home(row.id);
    std::fs::create_dir_all(&home).map_err(Error::io("create", &home))?;
    rustix::fs::renameat_with(CWD, staging, CWD, &home, RenameFlags::EXCHANGE).map_err(Error::io("publish", &home))?;
    sync_dir(&store.dir("layers"))?;
    store.set_aside(staging)
}
