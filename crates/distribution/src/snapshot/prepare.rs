//! Making a snapshot: everything slow happens in a staging directory; the name, the layers' references and the
//! directory's place come in one transaction. A process that dies before leaves nothing that anybody sees.
use super::{COPY, OVERLAY, Prepare, Record, Snapshot, copy, overlay, parts, record, settle};
use crate::layer::{Part, Prepared, Row, Stamp, View, row, sync_filesystem};
use crate::lease::{Kind, hold};
use crate::store::{Staging, sync_dir};
use crate::{Error, Result, Store, db};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) fn prepare(store: &Store, wanted: &Prepare<'_>) -> Result<Record> {
    let snapshotter = validate(store, wanted)?;
    if record::get(store, wanted.key)?.is_some() {
        return Err(taken(wanted));
    }
    let layers = store.db().look(|c| {
        let find = |diff_id| row(c, diff_id)?.ok_or_else(|| Error::not_found("layer", diff_id));
        wanted.parents.iter().map(find).collect::<Result<Vec<Row>>>()
    })?;
    let below = parts(store, &layers).map_err(|problem| damaged(wanted, problem))?;
    if snapshotter == OVERLAY && below.len() > overlay::MAX_LOWER {
        let problem = format!("{} layers are more than the {} it can stack", below.len(), overlay::MAX_LOWER);
        return Err(Error::SnapshotterUnavailable { snapshotter: OVERLAY.into(), problem });
    }
    let staging = store.stage()?;
    let prepared = fill(&staging, &layers, &below, snapshotter)?;
    let snapshot = Snapshot {
        key: wanted.key.into(),
        parents: wanted.parents.to_vec(),
        snapshotter: snapshotter.into(),
        created_at: db::now_text(),
        image_id: wanted.image_id.map(Into::into),
        labels: wanted.labels.clone(),
        read_only: wanted.read_only,
        size_bytes: 0,
    };
    let made = Record { id: 0, snapshot, layers, prepared };
    record::write_beside(staging.path(), &made)?;
    if snapshotter == COPY || made.prepared.len() > 1 {
        // Copies of files, which nobody makes again; an empty upper directory comes with its name.
        sync_filesystem(staging.path())?;
    }
    publish(store, wanted, &staging, made)
}

/// The merged tree of layers, lowest first, without a snapshot: it is there as long as the staging directory is. The caller
/// keeps the layers.
pub(super) fn tree(store: &Store, diff_ids: &[oci::Digest]) -> Result<(Staging, View)> {
    let layers = store.db().look(|c| {
        let find = |diff_id| row(c, diff_id)?.ok_or_else(|| Error::not_found("layer", diff_id));
        diff_ids.iter().map(find).collect::<Result<Vec<Row>>>()
    })?;
    let missing = |problem: String| Error::Record { what: "layers".into(), problem };
    let below = parts(store, &layers).map_err(missing)?;
    let staging = store.stage()?;
    fill(&staging, &layers, &below, OVERLAY)?;
    let own = Part { fs: staging.path().join("fs"), opaque_root: false };
    let all: Vec<Part> = std::iter::once(own).chain(below).collect();
    Ok((staging, View::open(&all)?))
}

fn validate(store: &Store, wanted: &Prepare<'_>) -> Result<&'static str> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if wanted.key.is_empty() || wanted.key.len() > 255 || !wanted.key.bytes().all(fits) {
        let expected = "one to 255 letters, digits, '_', '.' and '-'";
        return Err(Error::InvalidName { what: "snapshot key", name: wanted.key.into(), expected });
    }
    match (wanted.snapshotter, &store.probe().overlay) {
        ("" | OVERLAY, Ok(())) => Ok(OVERLAY),
        ("", Err(_)) | (COPY, _) => Ok(COPY),
        (OVERLAY, Err(problem)) => {
            Err(Error::SnapshotterUnavailable { snapshotter: OVERLAY.into(), problem: problem.clone() })
        }
        (other, _) => {
            let expected = "overlay or copy";
            Err(Error::InvalidName { what: "snapshotter", name: other.into(), expected })
        }
    }
}

/// Makes `fs` and `work` in the staging directory.
fn fill(staging: &Staging, layers: &[Row], below: &[Part], snapshotter: &str) -> Result<Prepared> {
    let fs = staging.path().join("fs");
    std::fs::create_dir(&fs).map_err(Error::io("create", &fs))?;
    crate::store::chmod(&fs, 0o755)?;
    let view = View::open(below)?;
    if snapshotter == COPY {
        copy::materialise(&view, &fs)?;
    } else {
        let work = staging.path().join("work");
        std::fs::create_dir(&work).map_err(Error::io("create", &work))?;
    }
    let root = open(&fs)?;
    let mut prepared = settle::settle(layers, below, &view, &root)?;
    root_attributes(layers, below, &root)?;
    let stat = rustix::fs::fstat(&root).map_err(Error::io("inspect", &fs))?;
    prepared.insert(Vec::new(), Stamp::of(&stat));
    Ok(prepared)
}

/// The root directory looks like that of the topmost layer that says what it is like.
fn root_attributes(layers: &[Row], below: &[Part], root: &OwnedFd) -> Result<()> {
    for (layer, part) in layers.iter().rev().zip(below) {
        if layer.root_entry {
            let from = open(&part.fs)?;
            let stat = rustix::fs::fstat(&from).map_err(Error::io("inspect", &part.fs))?;
            return copy::attributes(&from, b"", root, b"", &stat, b"");
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn publish(store: &Store, wanted: &Prepare<'_>, staging: &Staging, mut made: Record) -> Result<Record> {
    let snapshots = store.dir("snapshots");
    store.db().transaction("record a snapshot", |tx| {
        for layer in &made.layers {
            // Garbage collection may have come between; it does its part in a transaction, too.
            if row(tx, &layer.diff_id)?.is_none() {
                return Err(Error::not_found("layer", &layer.diff_id));
            }
            hold(tx, wanted.lease, Kind::Layer, layer.diff_id.as_str())?;
        }
        made.id =
            record::insert(tx, None, &made.snapshot, &made.layers, &made.prepared)?.ok_or_else(|| taken(wanted))?;
        let dir = made.dir(store);
        // No row had this id, so whatever lies there is a dead process's.
        store.discard(&dir)?;
        std::fs::rename(staging.path(), &dir).map_err(Error::io("publish", &dir))?;
        sync_dir(&snapshots)
    })?;
    Ok(made)
}

fn taken(wanted: &Prepare<'_>) -> Error {
    Error::Exists { what: "snapshot", name: wanted.key.into() }
}

fn damaged(wanted: &Prepare<'_>, problem: String) -> Error {
    Error::SnapshotDamaged { key: wanted.key.into(), problem }
}
