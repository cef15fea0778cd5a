//! btrfs: the merged tree of a chain of layers, made once of shared blocks, and a subvolume snapshot of it per container.
//!
//! No directory that has a subvolume in it is synced by itself, only with its file system: once the subvolume is deleted, Linux
//! (6.18) cannot replay the log of such a sync, and does not mount the file system any more.
//!
//! The trees lie in `chains/<digest of the diff IDs>`, are never mounted themselves, and go with the first of their layers.
use super::driver::{Chain, Driver};
use super::overlay::bind;
use super::{copy, record};
use crate::content::Turn;
use crate::db;
use crate::layer::{Marks, Part, Prepared, RECORD_FILE, View, row, sync_filesystem};
use crate::store::{names, sync_dir};
use crate::{Error, Result, Store};
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use sys::mount::Mount;

/// Where the trees of chains lie.
const CHAINS: &str = "chains";

pub(super) struct Btrfs;

/// Beside a chain's tree.
#[derive(Serialize, Deserialize)]
struct Record {
    parents: Vec<Digest>,
    prepared: record::Stamps,
}

impl Driver for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn probe(&self, store: &Store) -> std::result::Result<(), String> {
        let staging = store.stage().map_err(|e| e.to_string())?;
        if !sys::btrfs::is_btrfs(staging.path()).map_err(|e| e.to_string())? {
            return Err("the store does not lie on btrfs".into());
        }
        let try_it = || {
            sys::btrfs::create_subvolume(staging.path(), "one")?;
            sys::btrfs::snapshot(&staging.path().join("one"), staging.path(), "two")
        };
        try_it().map_err(|e| format!("subvolumes cannot be made: {e}"))
    }

    fn marks(&self, _: &Store) -> Option<Marks> {
        None
    }

    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
        loop {
            let (tree, prepared) = ensure(chain)?;
            match sys::btrfs::snapshot(&tree, to, "fs") {
                Ok(()) => return Ok(prepared),
                // Garbage collection was faster.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !tree.exists() => {}
                Err(e) => return Err(Error::io("make a subvolume snapshot of", tree)(e)),
            }
        }
    }

    fn mount(&self, _: &Store, _: &[Part], dir: &Path, read_only: bool) -> Result<Mount> {
        Ok(bind(&dir.join("fs"), read_only))
    }
}

fn home(store: &Store, parents: &[Digest]) -> (Digest, PathBuf) {
    let text: Vec<&str> = parents.iter().map(Digest::as_str).collect();
    let name = Digest::of(text.join(" ").as_bytes());
    let path = store.dir(CHAINS).join(name.as_str().replace(':', "-"));
    (name, path)
}

/// The tree of a chain and what preparation wrote into it; made when it is not there.
fn ensure(chain: &Chain<'_>) -> Result<(PathBuf, Prepared)> {
    let parents: Vec<Digest> = chain.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let (name, home) = home(chain.store, &parents);
    if let Some(record) = read(&home) {
        return Ok((home.join("fs"), record::read_stamps(record.prepared)));
    }
    let _turn = Turn::wait(chain.store, "chain", &name)?;
    if let Some(record) = read(&home) {
        return Ok((home.join("fs"), record::read_stamps(record.prepared)));
    }
    let staging = chain.store.stage()?;
    let fs = staging.path().join("fs");
    sys::btrfs::create_subvolume(staging.path(), "fs").map_err(Error::io("create the subvolume", &fs))?;
    crate::store::chmod(&fs, 0o755)?;
    copy::materialise(&View::open(chain.parts)?, &fs)?;
    let prepared = chain.settle(&fs)?;
    let beside = Record { parents, prepared: record::stamps(&prepared) };
    let path = staging.path().join(RECORD_FILE);
    std::fs::write(&path, db::to_json(&beside)).map_err(Error::io("write", path))?;
    sync_filesystem(staging.path())?;
    // What is there without a record is damaged.
    chain.store.remove(&home)?;
    std::fs::rename(staging.path(), &home).map_err(Error::io("publish", &home))?;
    sync_dir(&chain.store.dir(CHAINS))?;
    Ok((home.join("fs"), prepared))
}

fn read(home: &Path) -> Option<Record> {
    let record = serde_json::from_slice(&std::fs::read(home.join(RECORD_FILE)).ok()?).ok()?;
    home.join("fs").is_dir().then_some(record)
}

/// Removes the trees of chains that have lost a layer, or have the one that is given.
pub(crate) fn sweep_chains(store: &Store, damaged: Option<&Digest>) -> Result<()> {
    for (_, home) in names(&store.dir(CHAINS))? {
        let lost = match read(&home) {
            Some(record) => store.db().look(|c| {
                for parent in &record.parents {
                    if Some(parent) == damaged || row(c, parent)?.is_none() {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?,
            None => true,
        };
        if lost {
            store.remove(&home)?;
        }
    }
    Ok(())
}
