//! One `criu swrk` process: a request over a socket pair, its notifications answered, its end awaited.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use prost::Message;
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    send, socketpair,
};
use sys::clone::{Side, exit_now, fork_into, pidfd_send_signal};

use super::Directories;
use super::message::{Kind, Opts, Request, Response};
use crate::error::Context;
use crate::link::{Link, Message as Told, Tag};
use crate::{Error, Result};

/// Longest response read, in bytes. Real ones are below 1 KiB.
const MAX: usize = 64 << 10;

/// A running CRIU and the line to it.
#[derive(Debug)]
pub(crate) struct Session {
    socket: OwnedFd,
    child: Child,
    /// Numbers of the directories' descriptors in CRIU: images, work.
    numbers: Vec<i32>,
}

/// CRIU's process. Dropped before its end, it is killed.
#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: OwnedFd,
    ended: bool,
}

/// Something CRIU tells on its way.
pub(crate) struct Notice {
    /// `setup-namespaces`, `post-restore`, ...
    pub script: String,
    /// The process it is about, in our pid namespace; 0 if none.
    pub pid: i32,
    /// The terminal of `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

impl Session {
    /// Starts CRIU. Standard streams and the descriptors of `pass` are inherited under their numbers, nothing else;
    /// `prepare` runs in the new process before, and the directories are opened after it.
    ///
    /// CRIU takes descriptors of directories from whoever made its socket. Here that is CRIU's own process before it
    /// becomes CRIU: so they lie in its mount namespace, which `prepare` may have made.
    ///
    /// # Errors
    /// [`Error::Argument`] with what `prepare` or the start said.
    pub(crate) fn spawn(
        program: &Path,
        pass: &[BorrowedFd<'_>],
        directories: Option<&Directories>,
        prepare: impl FnOnce() -> std::result::Result<(), String>,
    ) -> Result<Self> {
        let (link, child_link) = Link::pair().step(|| "socketpair".into())?;
        let (pid, pidfd) = match fork_into(0, false).step(|| "cannot start criu".into())? {
            Side::Child => {
                drop(link);
                let failed = prepare().and_then(|()| become_criu(program, pass, directories, &child_link));
                let _ = child_link.send(Tag::Failed, &failed.err().unwrap_or_default());
                exit_now(127)
            }
            Side::Parent(pid, pidfd) => (pid, pidfd),
        };
        drop(child_link);
        let mut child = Child { pid, pidfd, ended: false };
        let lost = |text: &str| Error::Argument(format!("cannot start criu: {text}"));
        let (socket, numbers) = match link.receive().step(|| "cannot start criu".into())? {
            Some(Told { tag: Tag::Ready, text, fd: Some(socket) }) => (socket, text),
            other => return Err(lost(&other.map(|m| m.text).unwrap_or_default())),
        };
        // The line closes when CRIU has been started.
        if let Some(message) = link.receive().step(|| "cannot start criu".into())? {
            child.wait();
            return Err(lost(&message.text));
        }
        let numbers = numbers.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        Ok(Self { socket, child, numbers })
    }

    /// Writes the directories it was started with into a request.
    pub(crate) fn fill(&self, opts: &mut Opts) {
        opts.images_dir_fd = self.numbers.first().copied().unwrap_or(-1);
        opts.work_dir_fd = self.numbers.get(1).copied();
    }

    /// CRIU's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Sends the request and answers notifications with `notice` until the response is there and CRIU has ended.
    ///
    /// # Errors
    /// The one of `notice` first; else what CRIU said: type and errno, as runc words it.
    pub(crate) fn ask(mut self, request: &Request, notice: &mut dyn FnMut(Notice) -> Result<()>) -> Result<Response> {
        self.send(request)?;
        let mut refused = None;
        let response = loop {
            let (response, fd) = self.receive().map_err(|e| refused.take().unwrap_or(e))?;
            if response.kind != Kind::Notify as i32 || !response.success {
                break response;
            }
            let notify = response.notify.unwrap_or_default();
            let (script, pid) = (notify.script.unwrap_or_default(), notify.pid.unwrap_or(0));
            let answer = notice(Notice { script, pid, fd });
            let success = Some(answer.is_ok());
            refused = refused.or(answer.err());
            self.send(&Request { kind: Kind::Notify as i32, notify_success: success, ..Request::default() })?;
        };
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        let code = self.child.wait();
        if let Some(error) = refused {
            return Err(error);
        }
        if !response.success || response.kind != request.kind {
            let kind = Kind::try_from(response.kind).map_or("?", kind_name);
            let errno = response.errno.unwrap_or(0);
            return Err(Error::Argument(format!("criu failed: type {kind} errno {errno}")));
        }
        // A single pre-dump ends with CRIU waiting for the next one: it finds the line closed.
        if code != Some(0) && request.kind != Kind::PreDump as i32 {
            return Err(Error::Argument(format!("criu failed: exit status {}", code.unwrap_or(-1))));
        }
        Ok(response)
    }

    fn send(&self, request: &Request) -> Result<()> {
        send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL).step(|| "cannot talk to criu".into())?;
        Ok(())
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.step(|| "cannot talk to criu".into())?.bytes,
            }
        };
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if got == 0 {
            return Err(Error::Argument("criu has ended without an answer".into()));
        }
        let response = Response::decode(&buffer[..got]);
        let response = response.map_err(|e| Error::Argument(format!("criu's answer cannot be read: {e}")))?;
        Ok((response, fd))
    }
}

impl Child {
    /// Waits for the end: the exit code, `None` for a signal.
    fn wait(&mut self) -> Option<i32> {
        self.ended = true;
        loop {
            match waitpid(Pid::from_raw(self.pid), None) {
                Ok(WaitStatus::Exited(_, code)) => return Some(code),
                Err(nix::Error::EINTR) => {}
                _ => return None,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = pidfd_send_signal(&self.pidfd, libc::SIGKILL);
            self.wait();
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Empty => "EMPTY",
        Kind::Dump => "DUMP",
        Kind::Restore => "RESTORE",
        Kind::PreDump => "PRE_DUMP",
        Kind::Notify => "NOTIFY",
        Kind::FeatureCheck => "FEATURE_CHECK",
        Kind::Version => "VERSION",
    }
}

/// Becomes CRIU, after telling the parent where to reach it. Runs in the child; returns only if that fails.
fn become_criu(
    program: &Path,
    pass: &[BorrowedFd<'_>],
    directories: Option<&Directories>,
    link: &Link,
) -> std::result::Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", program.display());
    let (theirs, own) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|e| failed(&e))?;
    let opened = directories.map_or(Ok(vec![]), Directories::open)?;
    let numbers: Vec<String> = opened.iter().map(|file| file.as_raw_fd().to_string()).collect();
    sys::clone::default_signal(libc::SIGPIPE);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(|e| failed(&e))?;
    sys::clone::cloexec_from(3).map_err(|e| failed(&e))?;
    for fd in pass.iter().copied().chain(opened.iter().map(AsFd::as_fd)).chain([own.as_fd()]) {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).map_err(|e| failed(&e))?;
    }
    link.send_with(Tag::Ready, &numbers.join(" "), Some(theirs.as_fd())).map_err(|e| failed(&e))?;
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|e| failed(&e))?;
    let number = CString::new(own.as_raw_fd().to_string()).map_err(|e| failed(&e))?;
    let Err(e) = nix::unistd::execv(&path, &[c"criu", c"swrk", number.as_c_str()]);
    Err(failed(&e))
}
