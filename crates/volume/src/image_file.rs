//! A file system in a file: made by mkfs, so that a volume has a size of its own, or is encrypted.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;

use crate::mounted::run;
use crate::option::Key;
use crate::{Error, Result, luks};

/// Of fscrypt: a key that is longer, or shorter than AES-256 in XTS mode takes, is refused by the kernel.
const KEY_BYTES: usize = 64;

/// Makes the image at a path that does not exist.
pub(crate) fn make(path: &Path, fstype: &str, size: Option<u64>, from: Option<&str>, key: Option<&Key>) -> Result<()> {
    if let ("erofs", Some(from)) = (fstype, from) {
        run(Command::new("mkfs.erofs").arg("--quiet").arg(path).arg(from))?;
        return File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path));
    }
    let size = size.ok_or_else(|| Error::Invalid {
        field: "size",
        value: String::new(),
        why: format!("a volume of type {fstype} needs one"),
    })?;
    let whole = key.filter(|key| key.whole);
    let room = if whole.is_some() { size.saturating_add(luks::HEADER) } else { size };
    let file = File::options().write(true).create_new(true).open(path).map_err(Error::io("create", path))?;
    file.set_len(room).map_err(Error::io("make room in", path))?;
    match whole {
        Some(key) => {
            luks::format(path, key.path.as_ref())?;
            luks::opened(path, key.path.as_ref(), |device| make_file_system(device, fstype, false))?;
        }
        None => make_file_system(path, fstype, key.is_some())?,
    }
    file.sync_all().map_err(Error::io("sync", path))
}

fn make_file_system(path: &Path, fstype: &str, encrypted: bool) -> Result<()> {
    if fstype == "xfs" {
        return run(Command::new("mkfs.xfs").arg("-q").arg(path));
    }
    let mut command = Command::new("mkfs.ext4");
    // No blocks kept for root: the size is the user's.
    command.args(["-q", "-F", "-m", "0", "-E", "nodiscard"]);
    if encrypted {
        command.args(["-O", "encrypt"]);
    }
    run(command.arg(path))
}

/// Grows the file system of an image that is not mounted.
pub(crate) fn grow(path: &Path, fstype: &str, size: u64) -> Result<()> {
    let file = File::options().write(true).open(path).map_err(Error::io("open", path))?;
    file.set_len(size).map_err(Error::io("make room in", path))?;
    if fstype == "ext4" {
        // e2fsck ends with 1 when it mended something.
        let _ = run(Command::new("e2fsck").args(["-f", "-p"]).arg(path));
        run(Command::new("resize2fs").arg(path))?;
    }
    file.sync_all().map_err(Error::io("sync", path))
}

/// Gives the mounted file system its key, and makes `_data` an encrypted directory the first time.
pub(crate) fn unlock(mountpoint: &Path, key: &Path) -> Result<()> {
    let bytes = std::fs::read(key).map_err(Error::io("read the encryption key", key))?;
    if bytes.len() != KEY_BYTES {
        let why = format!("the key has {} bytes instead of {KEY_BYTES}", bytes.len());
        return Err(Error::Invalid { field: "encryption-key", value: key.display().to_string(), why });
    }
    let root = File::open(mountpoint).map_err(Error::io("open", mountpoint))?;
    let identifier = sys::fscrypt::add_key(&root, &bytes).map_err(Error::io("give the key to", mountpoint))?;
    let data = mountpoint.join("_data");
    if data.exists() {
        let opened = File::open(&data).map_err(Error::io("open", &data))?;
        let used = sys::fscrypt::key_of(&opened).map_err(Error::io("read the encryption of", &data))?;
        if used != identifier {
            let why = "it is not the key that the volume was made with".into();
            return Err(Error::Invalid { field: "encryption-key", value: key.display().to_string(), why });
        }
        return Ok(());
    }
    let fresh = mountpoint.join("_data.new");
    let _ = std::fs::remove_dir_all(&fresh);
    DirBuilder::new().mode(0o700).create(&fresh).map_err(Error::io("create", &fresh))?;
    let opened = File::open(&fresh).map_err(Error::io("open", &fresh))?;
    sys::fscrypt::encrypt(&opened, identifier).map_err(Error::io("encrypt", &fresh))
}
