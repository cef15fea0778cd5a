//! Notices every change of the records, whichever process made it: inotify tells of a mark that is written to after
//! each commit, and of SQLite's log, should the writer have died between the two.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;

/// Tells when the database was written to.
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches the data directory of a stack whose database is open (so that its log exists).
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(root: &Path) -> io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, root, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE)?;
        Ok(Self { inotify })
    }

    /// Waits for a write. Writes that come close together are one; it may return without cause.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> io::Result<()> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = reader.next()?;
            let name = event.file_name().map(std::ffi::CStr::to_bytes);
            let of_database = name.is_some_and(|name| matches!(name, b"network.changed" | b"network.db-wal"));
            if !of_database {
                continue;
            }
            while !reader.is_buffer_empty() {
                reader.next()?;
            }
            return Ok(());
        }
    }
}
