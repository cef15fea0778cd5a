//! File descriptors: those a service manager passes, process-owned record locks, non-blocking mode, short socket paths, change notification.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, inotify, open};
use rustix::io::Errno;

/// Sets `O_NONBLOCK`.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

/// Has the kernel begin to write what is dirty in a range of a file, without waiting for it (sync_file_range(2)). Promises
/// nothing.
pub fn start_writing(file: &File, range: Range<u64>) -> io::Result<()> {
    sync_range(file, &range, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until a range of a file is written, and gives its memory back: what is written once and not read again soon should
/// not push out what is (posix_fadvise(2), POSIX_FADV_DONTNEED). Promises nothing about a power cut.
pub fn forget_written(file: &File, range: Range<u64>) -> io::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_range(file, &range, all)?;
    let length = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
    match rustix::fs::fadvise(file, range.start, length, rustix::fs::Advice::DontNeed) {
        // Only a hint; a pipe has no pages.
        Ok(()) | Err(Errno::NOSYS | Errno::SPIPE | Errno::INVAL) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn sync_range(file: &File, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    let start = i64::try_from(range.start).map_err(io::Error::other)?;
    let length = i64::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    // SAFETY: takes a descriptor that lives across the call, and numbers.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, flags) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Not every file system knows it, and it is only a hint.
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESPIPE | libc::EINVAL)) => Ok(()),
            error => Err(error),
        },
    }
}

/// Keeps every descriptor of this process from 3 on to itself: programs it starts from now on inherit none
/// (close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11).
pub fn inherit_none() -> io::Result<()> {
    // SAFETY: close_range with this flag closes nothing and touches no memory.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the POSIX record lock (F_SETLK) of the whole file for this process; `false` when another holds it.
///
/// The lock goes with the process, and with the *first* close of any descriptor of this file in it: open the file
/// once and keep it. Children do not inherit it.
pub fn lock_record(file: &File) -> io::Result<bool> {
    let mut lock = whole_file();
    // SAFETY: fcntl(F_SETLK) reads one `flock` that lives across the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN) => Ok(false),
        _ => Err(error),
    }
}

/// The pid that holds the record lock of `file`, if any: the kernel's word, nothing is taken.
pub fn record_lock_owner(file: &File) -> io::Result<Option<i32>> {
    let mut lock = whole_file();
    // SAFETY: fcntl(F_GETLK) reads and writes one `flock` that lives across the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((i32::from(lock.l_type) != libc::F_UNLCK && lock.l_pid > 0).then_some(lock.l_pid))
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Opens a directory as a handle (`O_PATH`).
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A name for a file of `dir` that is short however deep the directory lies: a socket's address holds 108 bytes.
pub fn short_path(dir: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Listens on the unix socket `name` in `dir`, mode 0600.
pub fn listen(dir: &OwnedFd, name: &str) -> io::Result<UnixListener> {
    let path = short_path(dir, name);
    let listener = UnixListener::bind(&path)?;
    rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR)?;
    Ok(listener)
}

/// Connects to the unix socket `name` in the directory `dir`.
pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = open_dir(dir)?;
    UnixStream::connect(short_path(&dir, name))
}

/// inotify(7) on a few directories: tells that something changed, not what.
#[derive(Debug)]
pub struct ChangeWatch {
    fd: OwnedFd,
}

impl ChangeWatch {
    /// A non-blocking watch without paths.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    /// Watches the files of directory `path` (or the file itself): writes, creations, renames, deletions.
    pub fn add(&self, path: &Path) -> io::Result<()> {
        use inotify::WatchFlags as W;
        let flags =
            W::MODIFY | W::CREATE | W::MOVED_TO | W::MOVED_FROM | W::DELETE | W::DELETE_SELF | W::MOVE_SELF | W::ATTRIB;
        inotify::add_watch(&self.fd, path, flags)?;
        Ok(())
    }

    /// Takes all that is queued; `true` when there was something.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut seen = false;
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok((read, _)) if !read.is_empty() => seen = true,
                Ok(_) | Err(Errno::AGAIN) => return Ok(seen),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for ChangeWatch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for ChangeWatch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// First descriptor of sd_listen_fds(3).
const FIRST: i32 = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that systemd's socket activation passed to this process (LISTEN_PID, LISTEN_FDS), close-on-exec; none
/// when there are none or when they were taken before.
pub fn listen_fds() -> io::Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0).min(64);
    // SAFETY: sd_listen_fds(3): the descriptors 3..3+n were passed to this very process (LISTEN_PID) for it to own,
    // and TAKEN lets them be taken once.
    let fds: Vec<OwnedFd> = (FIRST..FIRST + count).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(fds)
}
