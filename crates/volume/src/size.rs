//! Disk use.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Error, Result};

/// Bytes a file takes on disk.
pub(crate) fn of_file(path: &Path) -> Result<u64> {
    std::fs::metadata(path).map(|found| found.blocks() * 512).map_err(Error::io("read", path))
}

/// Bytes a tree takes on disk; a file with several names counts once. What vanishes meanwhile counts nothing.
pub(crate) fn of_tree(root: &Path) -> Result<u64> {
    let (mut total, mut seen) = (0, HashSet::new());
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", directory)(error)),
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(total)
}
