//! User namespaces as mappings of ids (user_namespaces(7)): their words, and a namespace that only holds them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// What a user namespace's uid_map and gid_map say: lines of "first id inside, first id outside, how many". Of an idmapped
/// mount, inside is what is stored, outside what is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

impl IdMaps {
    /// From the words of mount(8)'s `X-mount.idmap=`: `u:0:100000:65536 g:0:100000:65536`, with `b:` or no letter for both.
    /// What the numbers mean, the kernel checks.
    ///
    /// # Errors
    /// `InvalidInput` names a text that has another form.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut maps = Self::default();
        for word in text.split_ascii_whitespace() {
            let (kind, numbers) = match word.split_once(':') {
                Some((kind @ ("u" | "g" | "b"), rest)) => (kind, rest),
                _ => ("b", word),
            };
            let line = format!("{}\n", numbers.replace(':', " "));
            if kind != "g" {
                maps.uids.push_str(&line);
            }
            if kind != "u" {
                maps.gids.push_str(&line);
            }
        }
        let number = |word: &str| word.parse::<u32>().is_ok();
        let good = |lines: &str| lines.lines().all(|l| l.split(' ').count() == 3 && l.split(' ').all(number));
        if maps.uids.is_empty() || maps.gids.is_empty() || !good(&maps.uids) || !good(&maps.gids) {
            let why =
                format!("{text:?} is no mapping of ids: expected [u:|g:|b:]INSIDE:OUTSIDE:SIZE for users and groups");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(maps)
    }

    /// User and group that id 0 inside is outside; without one, the lowest that there is.
    pub fn root(&self) -> (u32, u32) {
        let numbers = |line: &str| -> Vec<u32> { line.split(' ').filter_map(|n| n.parse().ok()).collect() };
        let root = |lines: &str| lines.lines().map(numbers).min().and_then(|line| line.get(1).copied()).unwrap_or(0);
        (root(&self.uids), root(&self.gids))
    }

    /// A user namespace with these mappings and no process in it; it lives as long as the descriptor.
    ///
    /// # Errors
    /// `EPERM` for ids that the caller does not have itself (it needs CAP_SETUID and CAP_SETGID), `EINVAL` for mappings that
    /// overlap, `ENOSPC` for more than 340 lines or too many namespaces.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let pid = fork_and_wait(&reader, &writer)?;
        let made = self.write(pid).and_then(|()| Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into()));
        drop(writer);
        crate::process::wait_child(pid)?;
        made
    }

    fn write(&self, pid: i32) -> io::Result<()> {
        std::fs::write(format!("/proc/{pid}/uid_map"), &self.uids)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), &self.gids)
    }
}

/// A child in a new user namespace that does nothing but wait until the pipe is closed.
fn fork_and_wait(reader: &OwnedFd, writer: &OwnedFd) -> io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and a stack this is a fork. The child, a copy of one thread of many, makes three plain system
    // calls on copied descriptors and leaves; it takes no lock and runs no destructor.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            libc::close(writer.as_raw_fd());
            let mut byte = 0_u8;
            libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as i32) }
    }
}

/// Makes files as another user from now on, in this thread, keeping its capabilities (setfsuid(2) takes some away).
///
/// # Errors
/// `EPERM` when the ids did not change: no CAP_SETUID or CAP_SETGID.
pub fn make_files_as(uid: u32, gid: u32) -> io::Result<()> {
    let before = rustix::thread::capabilities(None)?;
    // SAFETY: plain system calls that change credentials of this thread alone; -1 is refused and only tells the old id.
    let changed = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(u32::MAX).cast_unsigned(), libc::setfsgid(u32::MAX).cast_unsigned()) == (uid, gid)
    };
    if !changed {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(rustix::thread::set_capabilities(None, before)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn words() {
        let maps = IdMaps::parse("u:0:100000:65536 g:0:200000:10 7:9:1").unwrap();
        assert_eq!((&*maps.uids, &*maps.gids), ("0 100000 65536\n7 9 1\n", "0 200000 10\n7 9 1\n"));
        assert_eq!(maps.root(), (100_000, 200_000));
        for bad in ["", "u:0:1:1", "x:0:1:1", "0:1", "0:1:2:3", "4294967296:1:1", "0:-1:1"] {
            assert!(IdMaps::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_beside_other_threads() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a_namespace_beside_other_threads: needs root");
            return;
        }
        let maps = IdMaps::parse("0:100000:10").unwrap();
        let fd = maps.namespace().unwrap();
        let ours = std::fs::metadata("/proc/self/ns/user").unwrap().ino();
        assert_ne!(rustix::fs::fstat(&fd).unwrap().st_ino, ours);
        assert!(IdMaps::parse("0:1:10 5:100:1").unwrap().namespace().is_err());
    }

    #[test]
    fn files_of_another_user() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: files_of_another_user: needs root");
            return;
        }
        let path = std::env::temp_dir().join(format!("pier-sys-fsuid-{}", std::process::id()));
        let there = path.clone();
        let made = std::thread::spawn(move || {
            let before = rustix::thread::capabilities(None)?;
            make_files_as(12345, 54321)?;
            std::fs::write(&there, b"")?;
            assert_eq!(rustix::thread::capabilities(None)?, before);
            Ok::<_, io::Error>(())
        });
        made.join().unwrap().unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (12345, 54321));
    }
}
