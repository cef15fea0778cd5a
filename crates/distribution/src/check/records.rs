//! The database and its rows.
use super::Finding;
use crate::image_record::{mirror, restore};
use crate::layer::{self, RECORD_FILE};
use crate::store::rebuild;
use crate::{Error, ImageRecord, Result, Store, db, snapshot};

/// SQLite's own check, over every page and index.
pub(super) fn database(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    let answer = store
        .db()
        .read("check the database", |c| c.query_row("PRAGMA integrity_check(5)", [], |r| r.get::<_, String>(0)));
    let problem = match answer {
        Ok(answer) => (answer != "ok").then_some(answer),
        Err(error) if error.is_corrupt_database() => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    report(Finding::of("database".into(), problem, repair, || rebuild::by_force(store)));
    Ok(())
}

/// Rows that do not read; with `repair`, sound ones get the file beside their object that a later repair would need.
pub(super) fn rows(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    images(store, repair, report)?;
    layers(store, repair, report)?;
    snapshots(store, repair, report)?;
    if repair { crate::server::mirror::ensure(store) } else { Ok(()) }
}

fn images(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    let all: Vec<(i64, String, String, String)> = store.db().read("list images", |c| {
        let mut q = c.prepare("SELECT id, target, manifest, record FROM images")?;
        q.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect()
    })?;
    for (id, target, manifest, record) in all {
        let problem = match serde_json::from_str::<ImageRecord>(&record) {
            Ok(record) if record.target.digest.as_str() == target && record.manifest.digest.as_str() == manifest => {
                if repair {
                    mirror::ensure(store, id, &record);
                }
                continue;
            }
            Ok(_) => "its row is of another image".to_owned(),
            Err(error) => format!("its row does not read: {error}"),
        };
        let names = store.images().names(id)?;
        let object = format!("image {}", names.first().map_or(manifest.as_str(), String::as_str));
        report(Finding::of(object, Some(problem), repair, || restore(store, id, &target, &manifest)));
    }
    Ok(())
}

fn layers(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    let all: Vec<(i64, String)> = store.db().read("list layers", |c| {
        let mut q = c.prepare("SELECT id, diff_id FROM layers WHERE from_snapshot IS NULL")?;
        q.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
    })?;
    let sound = store.db().look(layer::rows)?;
    for (id, diff_id) in all {
        let home = store.layers().home(id);
        let beside = layer::read_beside(&home, id);
        let row = sound.iter().find(|row| row.id == id);
        let problem = match (row, &beside) {
            (Some(row), Some(beside)) if row.diff_id == beside.diff_id => continue,
            (Some(row), None) => {
                if repair
                    && home.is_dir()
                    && let Err(error) = layer::write_beside(&home, row)
                {
                    tracing::warn!(%error, "the layer is recorded in the database only");
                }
                continue;
            }
            (Some(_), Some(beside)) => format!("its row is of another layer, {}", beside.diff_id),
            (None, _) => "its row does not read".to_owned(),
        };
        let fix = || match &beside {
            Some(beside) => store.db().write("renew a layer's row", |tx| layer::renew(tx, beside)),
            // Without a row the directory is an orphan; whoever needs the layer unpacks it again.
            None => store
                .db()
                .write("remove a layer's row", |tx| tx.execute("DELETE FROM layers WHERE id = ?1", [id]).map(drop)),
        };
        report(Finding::of(format!("layer {diff_id}"), Some(problem), repair, fix));
    }
    Ok(())
}

fn snapshots(store: &Store, repair: bool, report: &mut impl FnMut(Finding)) -> Result<()> {
    let all: Vec<(i64, String, String, String)> = store.db().read("list snapshots", |c| {
        let mut q = c.prepare("SELECT id, key, labels, prepared FROM snapshots")?;
        q.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect()
    })?;
    for (id, key, labels, prepared) in all {
        let reads = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        if reads(&labels) && reads(&prepared) {
            continue;
        }
        let home = store.dir("snapshots").join(id.to_string());
        let fix = || {
            let Some(beside) = snapshot::read_beside(&home) else {
                return Err(Error::not_found("record", RECORD_FILE));
            };
            store.db().write("renew a snapshot's row", |tx| {
                let (labels, prepared) = (db::to_json(&beside.snapshot.labels), db::to_json(&beside.prepared));
                let sql = "UPDATE snapshots SET labels = ?2, prepared = ?3 WHERE id = ?1";
                tx.execute(sql, rusqlite::params![id, labels, prepared]).map(drop)
            })
        };
        report(Finding::of(format!("snapshot {key}"), Some("its row does not read".into()), repair, fix));
    }
    Ok(())
}
