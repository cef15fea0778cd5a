//! Making a snapshot: everything slow happens in a staging directory; the name, the layers' references and the
//! directory's place come in one transaction. A process that dies before leaves nothing that anybody sees: the record in the
//! directory gets its lasting name after the commit, and without it a directory that has no row is rubbish.
use super::driver::{Chain, Driver};
use super::{Prepare, Record, Snapshot, overlay, parts, record};
use crate::layer::{Part, Row, View, row, sync_filesystem};
use crate::lease::{Kind, hold};
use crate::store::{Staging, sync_dir};
use crate::{Error, Result, Store, db};
use sys::mount::mapped_tree;
use sys::userns::IdMaps;

pub(super) fn prepare(store: &Store, wanted: &Prepare<'_>) -> Result<Record> {
    validate(wanted)?;
    if record::get(store, wanted.key)?.is_some() {
        return Err(taken(wanted));
    }
    let layers = store.db().look(|c| {
        let find = |diff_id| row(c, diff_id)?.ok_or_else(|| Error::not_found("layer", diff_id));
        wanted.parents.iter().map(find).collect::<Result<Vec<Row>>>()
    })?;
    let below = parts(store, &layers).map_err(|problem| damaged(wanted, problem))?;
    // What is read-only has its own part as one more of them.
    let driver = store.driver(wanted.snapshotter, below.len() + usize::from(wanted.read_only))?;
    check_mapping(store, wanted, driver)?;
    let staging = store.stage()?;
    let prepared = driver.fill(&Chain { store, layers: &layers, parts: &below }, staging.path())?;
    let snapshot = Snapshot {
        key: wanted.key.into(),
        parents: wanted.parents.to_vec(),
        snapshotter: driver.name().into(),
        created_at: db::now_text(),
        image_id: wanted.image_id.map(Into::into),
        labels: wanted.labels.clone(),
        read_only: wanted.read_only,
        idmap: wanted.idmap.map(ToString::to_string).unwrap_or_default(),
        size_bytes: 0,
    };
    let made = Record { id: 0, snapshot, layers, prepared };
    record::write_beside(staging.path(), &made)?;
    if driver.marks(store).is_none() || made.prepared.len() > 1 {
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
    overlay::fill(&Chain { store, layers: &layers, parts: &below }, staging.path())?;
    let own = Part { fs: staging.path().join("fs"), opaque_root: false, marks: store.marks() };
    let all: Vec<Part> = std::iter::once(own).chain(below).collect();
    Ok((staging, View::open(&all)?))
}

fn validate(wanted: &Prepare<'_>) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if wanted.key.is_empty() || wanted.key.len() > 255 || !wanted.key.bytes().all(fits) {
        let expected = "one to 255 letters, digits, '_', '.' and '-'";
        return Err(Error::InvalidName { what: "snapshot key", name: wanted.key.into(), expected });
    }
    Ok(())
}

/// Mapped ids are the kernel's work, and it depends on the file system; better known now than when it is mounted.
fn check_mapping(store: &Store, wanted: &Prepare<'_>, driver: &dyn Driver) -> Result<()> {
    let Some(ids) = wanted.idmap else { return Ok(()) };
    if driver.name() == "fuse-overlayfs" {
        return Ok(());
    }
    let unmapped = |source| Error::IdsUnmapped { key: wanted.key.into(), source };
    let probe = IdMaps::parse(&ids.to_string()).and_then(|ids| mapped_tree(&store.dir("snapshots"), &ids, false));
    probe.map(drop).map_err(unmapped)
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
    record::confirm_beside(&made.dir(store));
    Ok(made)
}

fn taken(wanted: &Prepare<'_>) -> Error {
    Error::Exists { what: "snapshot", name: wanted.key.into() }
}

fn damaged(wanted: &Prepare<'_>, problem: String) -> Error {
    Error::SnapshotDamaged { key: wanted.key.into(), problem }
}
