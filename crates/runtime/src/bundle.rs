//! Reading `config.json` and `process.json`: once, size-capped, never through a symlink.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Context;
use crate::{Error, Result};

/// Longest configuration read, in bytes. Real ones are 5 to 50 KiB.
pub const MAX_BYTES: u64 = 8 << 20;

/// A bundle as read from disk, not hardened yet.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute path, symlinks resolved.
    pub path: PathBuf,
    /// Absolute path of the root filesystem, symlinks resolved.
    pub rootfs: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// What was left out of it.
    pub warnings: Vec<String>,
}

/// Reads a bundle directory.
///
/// # Errors
/// [`Error::Config`] naming the file and the reason.
pub fn read(path: &Path) -> Result<Bundle> {
    let config = path.join("config.json");
    let refuse = |reason: String| Error::Config { path: config.clone(), reason };
    let bundle = fs::canonicalize(path).map_err(|e| refuse(e.to_string()))?;
    let (spec, warnings) = parse::<Spec>(&config, open_config(&config)?)?;
    let root = spec.root().as_ref().ok_or_else(|| refuse("root is required".into()))?;
    let rootfs = fs::canonicalize(bundle.join(root.path()))
        .map_err(|e| refuse(format!("root.path {}: {e}", root.path().display())))?;
    if !rootfs.is_dir() {
        return Err(refuse(format!("root.path {} is not a directory", rootfs.display())));
    }
    if rootfs == Path::new("/") {
        return Err(refuse("root.path is the host's root".into()));
    }
    Ok(Bundle { path: bundle, rootfs, spec, warnings })
}

/// Reads the process object of `exec --process`.
///
/// # Errors
/// [`Error::Config`].
pub fn read_process(path: &Path) -> Result<(Process, Vec<String>)> {
    // The caller's own file, also a pipe (`--process <(...)`).
    let file = fs::File::open(path).step(|| format!("open {}", path.display()))?;
    parse::<Process>(path, file)
}

fn open_config(path: &Path) -> Result<fs::File> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .step(|| format!("open {}", path.display()))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err(Error::Config { path: path.to_owned(), reason: "not a regular file".into() });
    }
    Ok(file)
}

fn parse<T: DeserializeOwned>(path: &Path, file: fs::File) -> Result<(T, Vec<String>)> {
    let refuse = |reason: String| Error::Config { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| refuse(e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!("larger than {MAX_BYTES} bytes")));
    }
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
    crate::memory_policy::check_names(&value)?;
    let warnings = drop_unknown_capabilities(&mut value);
    let parsed = serde_json::from_value(value).map_err(|e| refuse(e.to_string()))?;
    Ok((parsed, warnings))
}

/// Removes capability names that this program does not know: callers built for newer kernels name them, and a capability
/// that cannot be granted is not granted.
fn drop_unknown_capabilities(value: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let process = if value.get("process").is_some() { value.get_mut("process") } else { Some(value) };
    let Some(sets) = process.and_then(|p| p.get_mut("capabilities")).and_then(Value::as_object_mut) else {
        return warnings;
    };
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!("unknown capability {name} left out"));
            }
            known
        });
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out() {
        let mut value = serde_json::json!({"process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"]}}});
        crate::memory_policy::check_names(&value)?;
        let warnings = drop_unknown_capabilities(&mut value);
        assert_eq!(warnings.len(), 1);
        assert_eq!(value["process"]["capabilities"]["bounding"], serde_json::json!(["CAP_KILL"]));
    }

    #[test]
    fn oddities_are_refused() {
        let dir = std::env::temp_dir().join(format!("pier-bundle-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.json");
        assert!(read(&dir).is_err(), "absent");
        fs::write(&path, b"{").unwrap();
        assert!(matches!(read(&dir), Err(Error::Config { .. })));
        fs::write(dir.join("real"), b"{}").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("real", &path).unwrap();
        assert!(read(&dir).is_err(), "symlink");
        fs::remove_dir_all(dir).unwrap();
    }
}
