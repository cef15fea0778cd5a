//! Images that are encrypted as a whole, by the kernel's dm-crypt and cryptsetup(8).
//!
//! A mapping lives as long as what is mounted from it: its removal is ordered as soon as it is in use (deferred). One that a
//! killed process left is taken away before the next, and with its volume.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mounted::run;
use crate::{Error, Result};

/// What cryptsetup puts before the data of a LUKS2 image.
pub(crate) const HEADER: u64 = 16 << 20;
/// A key that is shorter could be guessed: it is used as it is, without the slow derivation that passwords need.
const KEY_BYTES: u64 = 32;

/// Makes an encrypted image of a file.
pub(crate) fn format(disk: &Path, key: &Path) -> Result<()> {
    let found = std::fs::metadata(key).map_err(Error::io("find the encryption key", key))?;
    if found.len() < KEY_BYTES {
        let why = format!("the key has {} bytes; at least {KEY_BYTES} are needed", found.len());
        return Err(Error::Invalid { field: "encryption-key", value: key.display().to_string(), why });
    }
    let plain = ["luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"];
    run(cryptsetup(&plain).args(["--pbkdf-force-iterations", "1000", "--key-file"]).arg(key).arg(disk))
}

/// Runs work on the opened image. What the work mounted stays usable after it.
pub(crate) fn opened<T>(disk: &Path, key: &Path, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let directory = disk.parent().unwrap_or(disk);
    close(directory);
    let name = name(directory);
    run(cryptsetup(&["open", "--type", "luks2", "--key-file"]).arg(key).arg(disk).arg(&name))?;
    let done = work(&device(&name));
    let closed = run(cryptsetup(&["close", "--deferred"]).arg(&name));
    closed.and(done)
}

/// Takes away what a killed process left opened of the image in this directory.
pub(crate) fn close(directory: &Path) {
    let name = name(directory);
    if device(&name).exists()
        && let Err(error) = run(cryptsetup(&["close", "--deferred"]).arg(&name))
    {
        tracing::warn!(mapping = name, %error, "cannot close an encrypted image");
    }
}

fn cryptsetup(arguments: &[&str]) -> Command {
    let mut command = Command::new("cryptsetup");
    command.args(arguments);
    command
}

/// Directories of volumes and stages have names of their own.
fn name(directory: &Path) -> String {
    format!("pier-{}", directory.file_name().unwrap_or_default().to_string_lossy())
}

fn device(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}
