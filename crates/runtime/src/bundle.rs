//! Reading `config.json` and `process.json`: once, size-capped, never through a symlink.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Context;
use crate::{Error, Result, key_case};

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
    let size = file.metadata().map_or(0, |m| m.len().min(MAX_BYTES));
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| refuse(e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!("larger than {MAX_BYTES} bytes")));
    }
    decode(path, &bytes)
}

/// A configuration or process out of its JSON, and warnings about what was left out. `path` is for the error.
///
/// # Errors
/// [`Error::Config`] saying what is wrong and where, [`Error::Refused`].
pub fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<(T, Vec<String>)> {
    let refuse = |e: serde_json::Error| Error::Config { path: path.to_owned(), reason: e.to_string() };
    // This error names the place in the text; the slow way is for the configuration that needs it.
    let error = match key_case::from_slice(bytes) {
        Ok(parsed) => return Ok((parsed, vec![])),
        Err(e) => e,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return Err(refuse(error)) };
    crate::memory_policy::check_names(&value)?;
    default_user(&mut value);
    let warnings = drop_unknown_capabilities(&mut value);
    rename_scheduler_flags(&mut value);
    match key_case::from_value(&value) {
        Ok(parsed) => Ok((parsed, warnings)),
        Err(_) if warnings.is_empty() => Err(refuse(error)),
        Err(e) => Err(refuse(e)),
    }
}

/// A process without a user is root's, as in runc; oci-spec would refuse it.
fn default_user(value: &mut Value) {
    let process = process_of(value);
    if key_case::spelling(process, "args").is_some()
        && let Some(user) = key_case::field_or(process, "user", serde_json::json!({}))
    {
        key_case::field_or(user, "uid", 0.into());
        key_case::field_or(user, "gid", 0.into());
    }
}

/// The process of a configuration, or the value itself where it is one.
fn process_of(value: &mut Value) -> &mut Value {
    match key_case::spelling(value, "process") {
        Some(key) => &mut value[key],
        None => value,
    }
}

/// Removes capability names that this program does not know: callers built for newer kernels name them, and a capability
/// that cannot be granted is not granted.
fn drop_unknown_capabilities(value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(sets) = key_case::field(process_of(value), "capabilities").and_then(Value::as_object_mut) else {
        return vec![];
    };
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                unknown.push(name.as_str().unwrap_or_default().to_owned());
            }
            known
        });
    }
    unknown.sort();
    unknown.dedup();
    if unknown.is_empty() {
        return vec![];
    }
    vec![format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))]
}

/// Two of runtime-spec's names are spelt otherwise in oci-spec 0.10.
fn rename_scheduler_flags(config: &mut Value) {
    let scheduler = key_case::field(process_of(config), "scheduler");
    let flags = scheduler.and_then(|s| key_case::field(s, "flags")).and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out() {
        let mut value = serde_json::json!({"process": {"capabilities": {"bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"]}}});
        let warnings = drop_unknown_capabilities(&mut value);
        assert_eq!(warnings.len(), 1);
        assert_eq!(value["process"]["capabilities"]["bounding"], serde_json::json!(["CAP_KILL"]));
    }

    #[test]
    fn keys_in_any_case_and_what_is_left_out_beside_them() {
        let text = br#"{"ociVersion": "1.0.2", "Process": {"Args": ["a"], "cwd": "/", "Capabilities": {"bounding": ["CAP_TIME_TRAVEL"]}},
            "linux": {"resources": {"hugepageLimits": [{"pagesize": "2MB", "limit": 7}]}}, "later": true}"#;
        let (spec, warnings) = decode::<Spec>(Path::new("c"), text).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
        // Nothing of this is wrong for the exact way: it is only not read.
        let (spec, _) = decode::<Spec>(Path::new("c"), br#"{"ociVersion": "1.0.2", "Hostname": "h"}"#).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("h"));
        let error = decode::<Spec>(Path::new("c"), b"{\n\"ociVersion\": 5, \"Hostname\": \"h\"}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(decode::<Spec>(Path::new("c"), b"{\"ociVersion\": \"1.0.2\"} x").is_err());
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
