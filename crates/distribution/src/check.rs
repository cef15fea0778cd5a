//! Verification of everything on disk, and repair.
//!
//! | what | how it is seen | how it is repaired |
//! |---|---|---|
//! | database file | SQLite's integrity check | made anew from the records beside the objects |
//! | a row | it does not read, or names no object | from the record beside the object, or from the image's blobs |
//! | blob | its digest | set aside in `quarantine/`; the next pull fetches it |
//! | layer | unpacked once more from its blob and compared: names, kinds, modes, owners, times, attributes, content | the fresh tree takes its place, the old one is set aside |
//! | erofs image of a layer | mounted where nobody sees it and compared with the layer | set aside; made again when a snapshot needs it |
//! | permissions | owner can read, nobody else can write | set right |
//! | image, snapshot | what it is made of is there | layers are unpacked; blobs need a pull |
//!
//! A layer whose blob is not here can only be looked for. Without repair nothing of the store is changed.
use crate::content::rehash;
use crate::{Result, Store};
use oci::Digest;
use oci::digest::Hasher;
use std::path::Path;

mod layers;
mod modes;
mod records;
mod tree;

/// One object's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// "database", "blob <digest>", "layer <diff ID>", "erofs image of layer <diff ID>", "image <name>", "snapshot <key>" or a path of the store.
    pub object: String,
    /// `None`: it is sound.
    pub problem: Option<String>,
    /// It is sound again, or was set aside so that a fresh pull heals.
    pub repaired: bool,
}

impl Finding {
    fn sound(object: impl Into<String>) -> Self {
        Self { object: object.into(), problem: None, repaired: false }
    }

    fn damaged(object: impl Into<String>, problem: impl Into<String>, repaired: bool) -> Self {
        Self { object: object.into(), problem: Some(problem.into()), repaired }
    }

    /// Sound, or what is wrong and whether `repair`, when it was asked for, did its work.
    fn of(object: String, problem: Option<String>, repair: bool, fix: impl FnOnce() -> Result<()>) -> Self {
        let Some(problem) = problem else { return Self::sound(object) };
        if !repair {
            return Self::damaged(object, problem, false);
        }
        match fix() {
            Ok(()) => Self::damaged(object, problem, true),
            Err(error) => Self::damaged(object, format!("{problem}; cannot be repaired: {error}"), false),
        }
    }
}

/// Looks at everything, in the order in which one thing needs another. Reports each object as it is done; goes on past
/// damage, and with `repair` repairs it and writes the records beside the objects that are not there.
pub fn run(store: &Store, repair: bool, mut report: impl FnMut(Finding)) -> Result<()> {
    modes::check(store, repair, &mut report);
    records::database(store, repair, &mut report)?;
    records::rows(store, repair, &mut report)?;
    for (digest, _) in store.content().list()? {
        report(blob(store, &digest, repair));
    }
    layers::check(store, repair, &mut report)?;
    images(store, &mut report)?;
    for snapshot in store.snapshots().list(false)? {
        let problem = store.snapshots().examine(&snapshot.key).err().map(|e| e.to_string());
        // Its layers were repaired above, as far as that goes; asking for its mounts makes what they need.
        let repaired = repair && problem.is_some() && store.snapshots().mounts(&snapshot.key).is_ok();
        report(Finding { object: format!("snapshot {}", snapshot.key), problem, repaired });
    }
    Ok(())
}

fn blob(store: &Store, digest: &Digest, repair: bool) -> Finding {
    let path = store.content().path(digest);
    let problem = match hash(&path, digest) {
        Ok(actual) if actual == *digest => None,
        Ok(actual) => {
            let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            Some(format!("its {size} bytes have digest {actual}"))
        }
        // Collected meanwhile.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(e.to_string()),
    };
    Finding::of(format!("blob {digest}"), problem, repair, || store.set_aside(&path))
}

fn hash(path: &Path, digest: &Digest) -> std::io::Result<Digest> {
    let mut hasher = Hasher::like(digest);
    rehash(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}

fn images(store: &Store, report: &mut impl FnMut(Finding)) -> Result<()> {
    for image in store.images().list()? {
        let name = image.names.first().cloned().unwrap_or_else(|| image.config.to_string());
        let own = [&image.target.digest, &image.manifest.digest, &image.config];
        let mut missing = Vec::new();
        let attached = image.attached.iter().map(|own| &own.manifest.digest);
        for digest in own.into_iter().chain(image.layers.iter().map(|l| &l.digest)).chain(attached) {
            if store.content().has(digest)?.is_none() {
                missing.push(digest.to_string());
            }
        }
        let problem =
            (!missing.is_empty()).then(|| format!("blobs are missing: {}; pull it again", missing.join(", ")));
        report(Finding { object: format!("image {name}"), problem, repaired: false });
    }
    Ok(())
}
