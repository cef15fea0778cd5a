//! Verification of everything on disk, and repair by setting aside: what is damaged goes to `quarantine/`, so that a
//! fresh pull brings it back.
use crate::content::rehash;
use crate::layer::rows;
use crate::{Error, Result, Store, db};
use oci::Digest;
use oci::digest::Hasher;
use std::path::Path;

/// One object's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// "blob <digest>", "layer <diff ID>", "image <names>" or "snapshot <key>".
    pub object: String,
    /// `None`: it is sound.
    pub problem: Option<String>,
    /// It was set aside, so that a fresh pull heals.
    pub repaired: bool,
}

/// Hashes every blob, and looks whether the layers, images and snapshots have what they are made of. Reports each
/// object as it is done; goes on past errors.
pub fn run(store: &Store, repair: bool, mut report: impl FnMut(Finding)) -> Result<()> {
    database(store, &mut report)?;
    for (digest, _) in store.content().list()? {
        report(blob(store, &digest, repair));
    }
    let layers = store.db().look(rows)?;
    for row in layers {
        let fs = store.layers().fs(row.id);
        let problem = (!fs.is_dir()).then(|| "its directory is missing".to_owned());
        // Its row stays, snapshots refer to it; the next pull gives it a directory again, as nothing finds it here.
        let repaired = repair && problem.is_some();
        report(Finding { object: format!("layer {}", row.diff_id), problem, repaired });
    }
    images(store, &mut report)?;
    for snapshot in store.snapshots().list(false)? {
        let problem = store.snapshots().mounts(&snapshot.key).err().map(|e| e.to_string());
        report(Finding { object: format!("snapshot {}", snapshot.key), problem, repaired: false });
    }
    Ok(())
}

fn database(store: &Store, report: &mut impl FnMut(Finding)) -> Result<()> {
    let answer: String =
        store.db().read("check the database", |c| c.query_row("PRAGMA integrity_check(5)", [], |r| r.get(0)))?;
    let problem = (answer != "ok").then_some(answer);
    report(Finding { object: "database".into(), problem, repaired: false });
    Ok(())
}

fn blob(store: &Store, digest: &Digest, repair: bool) -> Finding {
    let path = store.content().path(digest);
    let problem = match hash(&path, digest) {
        Ok(actual) if actual == *digest => None,
        Ok(actual) => Some(format!("its content has digest {actual}")),
        // Collected meanwhile.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(e.to_string()),
    };
    let repaired = problem.is_some() && repair && set_aside(store, &path).is_ok();
    Finding { object: format!("blob {digest}"), problem, repaired }
}

fn hash(path: &Path, digest: &Digest) -> std::io::Result<Digest> {
    let mut hasher = Hasher::like(digest);
    rehash(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}

fn set_aside(store: &Store, path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("object");
    let to = store.dir("quarantine").join(format!("{name}.{}", db::random_name()));
    std::fs::rename(path, &to).map_err(Error::io("set aside", path))
}

fn images(store: &Store, report: &mut impl FnMut(Finding)) -> Result<()> {
    for image in store.images().list()? {
        let name = image.names.first().cloned().unwrap_or_else(|| image.config.to_string());
        let own = [&image.target.digest, &image.manifest.digest, &image.config];
        let mut missing = Vec::new();
        for digest in own.into_iter().chain(image.layers.iter().map(|l| &l.digest)) {
            if store.content().has(digest)?.is_none() {
                missing.push(digest.to_string());
            }
        }
        let problem = (!missing.is_empty()).then(|| format!("blobs are missing: {}", missing.join(", ")));
        report(Finding { object: format!("image {name}"), problem, repaired: false });
    }
    Ok(())
}
