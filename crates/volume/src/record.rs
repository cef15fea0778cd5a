//! What is known about a volume, and the file that keeps it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Version of `volume.json`; one that is newer than this is refused, not guessed at.
const FORMAT: u32 = 1;

/// The only driver.
pub(crate) const LOCAL: &str = "local";

/// A volume to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 255 bytes. Empty: 64 random hex digits, and the volume is anonymous.
    pub name: String,
    /// Empty: "local".
    pub driver: String,
    /// "type", "device" and "o" as mount(8) takes them; none: a directory of Pier's own.
    pub options: BTreeMap<String, String>,
    /// Free for callers.
    pub labels: BTreeMap<String, String>,
}

/// A volume as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique name.
    pub name: String,
    /// "local".
    pub driver: String,
    /// As given at creation.
    pub options: BTreeMap<String, String>,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub created_at: String,
    /// Made without a name.
    pub anonymous: bool,
    /// Host directory of the data.
    #[serde(skip)]
    pub mountpoint: std::path::PathBuf,
    /// Who holds it, in no order.
    #[serde(skip)]
    pub consumers: Vec<String>,
    /// Disk use in bytes, when it was asked for.
    #[serde(skip)]
    pub size_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    #[serde(flatten)]
    volume: Volume,
}

/// 64 random hex digits.
pub(crate) fn random_name() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    oci::name::id_from_random(bytes)
}

/// Says whether a name may stand in a path and in a request.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if oci::name::is_valid(name) { Ok(()) } else { Err(Error::InvalidName(name.into())) }
}

/// Writes a record into a directory that nobody sees yet, durably.
pub(crate) fn write(directory: &Path, volume: &Volume) -> Result<()> {
    let path = directory.join("volume.json");
    let text = serde_json::to_vec_pretty(&OnDisk { format: FORMAT, volume: volume.clone() })
        .map_err(|error| Error::Damaged { name: volume.name.clone(), why: error.to_string() })?;
    let mut file = File::create(&path).map_err(Error::io("create", &path))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &path))
}

/// Reads the record of a volume's directory; `None` when there is no such volume.
pub(crate) fn read(directory: &Path, name: &str) -> Result<Option<Volume>> {
    let path = directory.join("volume.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !directory.exists() => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Damaged { name: name.into(), why: "volume.json is missing".into() });
        }
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let damaged = |why: String| Error::Damaged { name: name.into(), why };
    let record: OnDisk = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if record.format != FORMAT {
        return Err(damaged(format!("format {} is not {FORMAT}", record.format)));
    }
    if record.volume.name != name {
        return Err(damaged(format!("it names volume {}", record.volume.name)));
    }
    Ok(Some(Volume { mountpoint: directory.join("_data"), ..record.volume }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "data", "a.b_c-d", &"x".repeat(255)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let name = random_name();
        assert!(name.len() == 64 && check_name(&name).is_ok() && name != random_name());
    }
}
