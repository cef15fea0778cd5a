//! Records as versioned JSON files, and the scan that finds them again.
use crate::{Error, atomic_write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    record: T,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Writes a record durably, mode 0600.
pub fn write_json<T: Serialize>(path: &Path, format: u32, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(&Envelope { format, record })
        .map_err(|source| Error::Damaged { path: path.into(), source })?;
    atomic_write(path, &bytes, 0o600)
}

/// Reads a record of the wanted format.
pub fn read_json<T: DeserializeOwned>(path: &Path, wanted: u32) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let damaged = |source| Error::Damaged { path: path.into(), source };
    let version: Version = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version.format != wanted {
        return Err(Error::Format { path: path.into(), found: version.format, wanted });
    }
    Ok(serde_json::from_slice::<Envelope<T>>(&bytes).map_err(damaged)?.record)
}

/// The good records with their file stems, and the damaged ones as errors.
pub type Scanned<T> = (Vec<(String, T)>, Vec<Error>);

/// Reads every `*.json` record of a directory: the good ones with their file stems, and the damaged ones as errors.
/// A missing directory is empty. Left-over stages of dead writers are removed.
pub fn scan<T: DeserializeOwned>(dir: &Path, wanted: u32) -> Result<Scanned<T>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(e) => return Err(Error::io("read directory", dir)(e)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let (mut good, mut damaged) = (Vec::new(), Vec::new());
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "json") && !stem.starts_with('.') {
            match read_json(&path, wanted) {
                Ok(record) => good.push((stem, record)),
                Err(e) if e.is_not_found() => {}
                Err(e) => damaged.push(e),
            }
        }
    }
    Ok((good, damaged))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Lock;

    #[test]
    fn damaged_records_are_named_and_others_survive() {
        let dir = tempfile::tempdir().unwrap();
        write_json(&dir.path().join("a.json"), 1, &1).unwrap();
        write_json(&dir.path().join("new.json"), 2, &1).unwrap();
        fs::write(dir.path().join("torn.json"), b"{\"form").unwrap();
        let (good, bad) = scan::<u32>(dir.path(), 1).unwrap();
        assert_eq!(good, [("a".to_string(), 1)]);
        let texts: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("new.json has format 2") && texts[1].contains("torn.json"), "{texts:?}");
    }

    #[test]
    fn one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::acquire(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }
}
