//! What is known about a volume, and the file that keeps it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::option::{self, Backing};
use crate::volumes::sync_directory;
use crate::{Error, Result};

/// Version of `volume.json`. 1 had no id (its directory had the volume's name) and is still read.
const FORMAT: u32 = 2;

/// The driver of this host's own storage.
pub(crate) const LOCAL: &str = "local";

/// A volume to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 255 bytes. Empty: the volume is called by its id, and is anonymous.
    pub name: String,
    /// Empty: "local".
    pub driver: String,
    /// What the driver knows; see [`crate::option`] for "local". None: a directory of Pier's own.
    pub options: BTreeMap<String, String>,
    /// Free for callers.
    pub labels: BTreeMap<String, String>,
    /// Most bytes that the data may take. None: no limit of its own.
    pub size_bytes: Option<u64>,
    /// Owner of the root directory. None: 0.
    pub uid: Option<u32>,
    /// Group of the root directory. None: 0.
    pub gid: Option<u32>,
    /// Mode of the root directory, at most 0o7777. None: 0o755.
    pub mode: Option<u32>,
}

/// A volume as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// 64 hex digits; never changes.
    #[serde(default)]
    pub id: String,
    /// Unique name. The link beside the volume's directory decides; the record says it for repairs.
    pub name: String,
    /// "local".
    pub driver: String,
    /// As given at creation.
    pub options: BTreeMap<String, String>,
    /// Free for callers.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub created_at: String,
    /// Made without a name.
    pub anonymous: bool,
    /// Most bytes that the data may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit_bytes: Option<u64>,
    /// Owner of the root directory, as given at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Its mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The file system in the volume's image file, when its data is in one: "ext4", "xfs", "erofs".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What its driver calls it, when that is a plugin: the name it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_name: Option<String>,
    /// Host directory of the data; of a volume that is mounted, the place while it is in use.
    #[serde(skip)]
    pub mountpoint: PathBuf,
    /// Who holds it, in no order.
    #[serde(skip)]
    pub consumers: Vec<String>,
    /// Disk use in bytes, when it was asked for.
    #[serde(skip)]
    pub size_bytes: Option<u64>,
    /// What the driver says of it.
    #[serde(skip)]
    pub status: BTreeMap<String, String>,
}

impl Volume {
    /// The limit, when it is a project quota: that of a directory of Pier's own.
    pub(crate) fn quota(&self) -> Option<u64> {
        self.size_limit_bytes.filter(|_| option::backing_of(self).is_ok_and(|it| it == Backing::Directory))
    }
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    #[serde(flatten)]
    volume: Volume,
}

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    oci::name::id_from_random(bytes)
}

/// Says whether a name may stand in a path and in a request.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if oci::name::is_valid(name) { Ok(()) } else { Err(Error::InvalidName(name.into())) }
}

/// Writes a record durably in place of the one that is there.
pub(crate) fn write(directory: &Path, volume: &Volume) -> Result<()> {
    let (path, fresh) = (directory.join("volume.json"), directory.join("volume.json.tmp"));
    let text = serde_json::to_vec_pretty(&OnDisk { format: FORMAT, volume: volume.clone() })
        .map_err(|error| Error::Damaged { name: volume.name.clone(), why: error.to_string() })?;
    let mut file = File::create(&fresh).map_err(Error::io("create", &fresh))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &fresh))?;
    std::fs::rename(&fresh, &path).map_err(Error::io("write", &path))?;
    sync_directory(directory)
}

/// Reads the record of a volume's directory under the name that the volume goes by.
pub(crate) fn read(directory: &Path, id: &str, name: &str) -> Result<Option<Volume>> {
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
    match record.format {
        1 => {}
        FORMAT if record.volume.id == id => {}
        FORMAT => return Err(damaged(format!("it is that of volume {}", record.volume.id))),
        other => return Err(damaged(format!("format {other} is newer than {FORMAT}"))),
    }
    Ok(Some(Volume { id: id.into(), ..record.volume }))
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
        let name = random_id();
        assert!(name.len() == 64 && check_name(&name).is_ok() && name != random_id());
    }
}
