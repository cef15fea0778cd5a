//! Network namespaces: open one by path, work inside one, make one that is bound to a path.
//!
//! A thread's network namespace is a property of the thread, so whoever works inside another namespace does so on an
//! OS thread made for the purpose, which ends with the work. Nothing here ever moves the calling thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// `NS_GET_NSTYPE` of ioctl_ns(2): `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Why a path is no network namespace one can use.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The path as given.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path is there, but it is something else.
    #[error("{} is not a network namespace", path.display())]
    NotNetns {
        /// The path as given.
        path: PathBuf,
    },
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: OwnedFd,
    inode: u64,
}

impl Netns {
    /// Opens `path` and makes sure that it is a network namespace.
    ///
    /// # Errors
    /// [`NetnsError`] says whether the path is missing or is something else.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let open = |source| NetnsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open)?;
        let inode = file.metadata().map_err(open)?.ino();
        let file = OwnedFd::from(file);
        if !is_netns(file.as_fd()) {
            return Err(NetnsError::NotNetns { path: path.to_owned() });
        }
        Ok(Self { file, inode })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Netns::open`].
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Inode number in nsfs: equal numbers at one moment are the same namespace.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` on a thread of its own inside this namespace and waits for it.
    ///
    /// # Errors
    /// The kernel's answer when the thread cannot be made or cannot enter.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a network namespace, runs `setup` inside it and binds it to the existing file `path`.
///
/// # Errors
/// The kernel's or `setup`'s; nothing stays bound then.
pub fn create_bound(path: &Path, setup: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    on_own_thread(|| {
        // SAFETY: CLONE_NEWNET affects only this thread, which ends right after; no memory or descriptors are unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
        setup()?;
        Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?)
    })
}

/// Makes `dir` a mount point of its own with shared propagation, so that what is bound in it, and unbound again,
/// is so in the mount namespaces copied from this one too. Idempotent.
///
/// # Errors
/// The kernel's.
pub fn share_directory(dir: &Path) -> io::Result<()> {
    if !is_mount_point(dir)? {
        rustix::mount::mount_bind(dir, dir)?;
    }
    Ok(rustix::mount::mount_change(dir, MountPropagationFlags::SHARED)?)
}

/// Whether `path` is the root of a mount.
///
/// # Errors
/// The kernel's.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Takes the mounts on `path` away, however many there are; busy ones lazily. Fine with a path that is no mount.
///
/// # Errors
/// The kernel's.
pub fn unbind(path: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ties a socket to one link of its namespace (SO_BINDTODEVICE of socket(7)): it sends and hears there alone.
///
/// # Errors
/// The kernel's: no such link.
pub fn bind_to_link(socket: BorrowedFd<'_>, link: &str) -> io::Result<()> {
    let (name, length) = (link.as_ptr().cast(), link.len() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of `name`, which live until the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_netns(file: BorrowedFd<'_>) -> bool {
    let nsfs = rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
    // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory; the descriptor is open.
    nsfs && unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) } == libc::CLONE_NEWNET
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}
