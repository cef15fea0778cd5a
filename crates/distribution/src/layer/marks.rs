//! How a directory of a layer or snapshot says that it hides what its parents have at its path. Whiteouts need no such
//! choice: making a character device 0:0 takes no privilege since Linux 5.8, and xattr whiteouts are younger than that.
use super::root::proc_path;
use super::tree::attribute;
use rustix::fs::{AtFlags, XattrFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

/// What fuse-overlayfs puts beside its attribute.
const FUSE_OPAQUE: &[u8] = b".wh..wh..opq";

/// One of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// `trusted.overlay.opaque=y`: overlay by root of the machine.
    Trusted,
    /// `user.overlay.opaque=y`: overlay with `userxattr`, for who may not see trusted attributes.
    User,
    /// A file `.wh..wh..opq`: an upper directory of fuse-overlayfs, which shows nobody such names.
    Fuse,
}

impl Marks {
    /// The attribute of layers.
    fn key(self) -> &'static str {
        match self {
            Self::User => "user.overlay.opaque",
            Self::Trusted | Self::Fuse => "trusted.overlay.opaque",
        }
    }

    /// Whether the directory hides its parents.
    pub(crate) fn is_opaque(self, dir: &OwnedFd) -> bool {
        match self {
            Self::Fuse => rustix::fs::statat(dir, FUSE_OPAQUE, AtFlags::SYMLINK_NOFOLLOW).is_ok(),
            _ => attribute(dir, self.key()).is_some_and(|v| v == b"y"),
        }
    }

    /// Makes a directory hide what its parents have at its path.
    pub(crate) fn set_opaque(self, dir: &OwnedFd) -> rustix::io::Result<()> {
        rustix::fs::setxattr(proc_path(dir, b""), self.key(), b"y", XattrFlags::empty())
    }

    /// Whether a name is only a mark.
    pub(crate) fn is_mark(self, name: &[u8]) -> bool {
        self == Self::Fuse && name.starts_with(b".wh.")
    }

    /// What this process can set on the file system of `dir`, and see there.
    pub(crate) fn possible(dir: &Path) -> Self {
        const PROBE: &str = "trusted.pier.probe";
        match rustix::fs::setxattr(dir, PROBE, b"", XattrFlags::empty()) {
            Err(rustix::io::Errno::PERM) => Self::User,
            done => {
                if done.is_ok() {
                    let _ = rustix::fs::removexattr(dir, PROBE);
                }
                Self::Trusted
            }
        }
    }
}
