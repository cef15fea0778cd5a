//! A little space that is kept, so that on a full disk the database still opens and what is not wanted can be removed: even
//! reading needs a page of shared memory beside the database, and a removal some pages of its log.
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::path::Path;

const FILE: &str = "reserve";
/// Bytes that are kept.
const SIZE: u64 = 512 << 10;
/// With less free than this, in bytes, the reserve is given up.
const FULL: u64 = 256 << 10;
/// With more free than this, in bytes, it is made again.
const ROOM: u64 = 16 << 20;

/// Makes the reserve when there is room, gives it up when there is none. That it cannot be is no error.
pub(super) fn settle(root: &Path) {
    let Ok(disk) = rustix::fs::statvfs(root) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let path = root.join(FILE);
    if free < FULL {
        super::empty(&path);
    } else if free > ROOM && std::fs::metadata(&path).map_or(0, |meta| meta.len()) < SIZE {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .and_then(|file| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE));
        if let Err(error) = made {
            tracing::debug!(%error, "no space is kept for a full disk");
        }
    }
}
