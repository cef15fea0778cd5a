//! Stage, fsync, rename, fsync the directory: a file is there whole or not at all, also after a power cut.
use crate::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces `path` by `bytes` durably. `mode` holds the permission bits.
///
/// # Errors
/// The file is unchanged when this fails (ENOSPC, EACCES, ...).
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let dir = parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stage = dir.join(format!(".{name}.{:x}.tmp", rand::random::<u64>()));
    let result = stage_and_rename(&stage, path, bytes, mode);
    if result.is_err() {
        let _ = fs::remove_file(&stage);
    }
    result?;
    sync_dir(dir)
}

fn stage_and_rename(stage: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut file =
        File::options().write(true).create_new(true).mode(mode).open(stage).map_err(Error::io("create", stage))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(Error::io("chmod", stage))?;
    file.write_all(bytes).map_err(Error::io("write", stage))?;
    file.sync_all().map_err(Error::io("sync", stage))?;
    fs::rename(stage, path).map_err(Error::io("rename to", path))
}

/// fsync(2) of a directory: its entries survive a power cut.
pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync directory", dir))
}

/// Makes a directory (and its parents) with `mode` and syncs the one above it. One that exists is fine.
pub fn create_dir_durable(dir: &Path, mode: u32) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir_durable(above, 0o755)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(Error::io("chmod", dir))?;
            sync_dir(parent(dir))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io("create directory", dir)(e)),
    }
}

/// Removes a directory with all in it: renamed out of the way first, so that half a removal is never seen under its
/// name. A missing one is fine.
pub fn remove_dir_durable(dir: &Path) -> Result<(), Error> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let trash = parent(dir).join(format!(".{name}.{:x}.trash", rand::random::<u64>()));
    match fs::rename(dir, &trash) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("rename", dir)(e)),
    }
    fs::remove_dir_all(&trash).map_err(Error::io("remove", &trash))?;
    sync_dir(parent(dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
