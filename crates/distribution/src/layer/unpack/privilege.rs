//! What a process without the machine's privilege makes of owners and devices.
//!
//! In a user namespace owners are what its mapping says; owners that it does not have, and devices, which nobody may make
//! there, are told of once per layer: the owner becomes the process's own, the device is left out. Without a user
//! namespace, and not root, every owner becomes the process's own, and [`Privilege::stored_owner`] reads it as root's.
use super::super::entry::Entry;
use super::{Unpacker, failed, owner};
use crate::Result;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

/// Of this process, over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Root of the machine.
    Machine,
    /// Root of a user namespace.
    Namespace,
    /// Neither; this is its user id.
    User(u32),
}

impl Privilege {
    /// Asked once.
    pub(crate) fn of_process() -> Self {
        static KNOWN: OnceLock<Privilege> = OnceLock::new();
        *KNOWN.get_or_init(|| {
            let uid = rustix::process::geteuid();
            // The first user namespace has all ids; proc(5), and user_namespaces(7).
            let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
            match (uid.is_root(), std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)) {
                (true, true) => Self::Machine,
                (true, false) => Self::Namespace,
                (false, _) => Self::User(uid.as_raw()),
            }
        })
    }

    /// Whether it can work only in directories that are open to their owner.
    pub(super) fn needs_open_directories(self) -> bool {
        matches!(self, Self::User(_))
    }

    /// Owner and group as an archive has them.
    pub(crate) fn stored_owner(self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::User(own) if own == uid => (0, 0),
            _ => (uid, gid),
        }
    }
}

/// What could not be made as the archive has it.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub owners: u64,
    pub devices: u64,
}

impl Left {
    pub(super) fn tell(&self) {
        let Self { owners, devices } = *self;
        if owners > 0 {
            tracing::warn!(owners, "owners that this process cannot give became its own");
        }
        if devices > 0 {
            tracing::warn!(devices, "devices were left out: making them needs root of the machine");
        }
    }
}

impl Unpacker {
    pub(super) fn chown(&mut self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
        let (uid, gid) = owner(entry);
        let done = rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        self.owned(done).map_err(failed("set the owner of", entry))
    }

    /// Passes what a change of owner may fail with where ids are missing.
    pub(super) fn owned(&mut self, done: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match done {
            Err(Errno::INVAL | Errno::PERM) if self.privilege != Privilege::Machine => {
                self.left.owners += 1;
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Privilege;

    #[test]
    fn owners_of_a_plain_user_read_as_root() {
        assert_eq!(Privilege::User(1000).stored_owner(1000, 100), (0, 0));
        assert_eq!(Privilege::User(1000).stored_owner(5, 6), (5, 6));
        assert_eq!(Privilege::Namespace.stored_owner(1000, 100), (1000, 100));
    }
}
