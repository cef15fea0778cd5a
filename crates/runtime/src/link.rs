//! The line between the runtime and the process it is setting up: a socket pair, one tagged message each.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Longest message: errors are cut.
const MAX: usize = 4096;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Parent: cgroups, id maps and limits are in place.
    Go,
    /// Child: run the runtime-side hooks now; parent: they are done.
    Hooks,
    /// Child: here is the seccomp notify descriptor; parent: handed over.
    Notify,
    /// Intermediate child: the pid of the real one.
    Pid,
    /// Child: open the source of this mount; parent: here it is, or why not.
    Source,
    /// Child: the network namespace is there; parent: the devices are in it.
    Devices,
    /// Child: here is my root directory, as it is going to be.
    Root,
    /// Child: everything is set up.
    Ready,
    /// Parent: it is recorded, go on.
    Recorded,
    /// Child: this failed.
    Failed,
}

const TAGS: [Tag; 10] = [
    Tag::Go,
    Tag::Hooks,
    Tag::Notify,
    Tag::Pid,
    Tag::Source,
    Tag::Devices,
    Tag::Root,
    Tag::Ready,
    Tag::Recorded,
    Tag::Failed,
];

fn number(tag: Tag) -> u8 {
    TAGS.iter().position(|t| *t == tag).unwrap_or_default() as u8
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    pub tag: Tag,
    pub text: String,
    pub fd: Option<OwnedFd>,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    pub(crate) fn send(&self, tag: Tag, text: &str) -> io::Result<()> {
        self.send_with(tag, text, None)
    }

    /// A short message by write(2), for a process that may be under a seccomp filter by now: no other call is needed.
    /// It ends the process (`SIGPIPE`) when the parent is gone.
    pub(crate) fn write(&self, tag: Tag, text: &str) -> io::Result<()> {
        let mut message = vec![number(tag)];
        message.extend_from_slice(text.as_bytes());
        rustix::io::write(&self.0, &message)?;
        Ok(())
    }

    /// The answer to [`Self::write`], by read(2); its text.
    pub(crate) fn read(&self, tag: Tag) -> io::Result<String> {
        let mut buffer = [0; 64];
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut buffer))?;
        match buffer[..got].split_first() {
            Some((first, text)) if *first == number(tag) => Ok(String::from_utf8_lossy(text).into_owned()),
            _ => Err(io::Error::other("the other side is gone")),
        }
    }

    /// Says that everything is set up, and waits until it is recorded.
    pub(crate) fn report_ready(&self) -> io::Result<()> {
        self.write(Tag::Ready, "")?;
        self.read(Tag::Recorded).map(drop)
    }

    pub(crate) fn send_with(&self, tag: Tag, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let head = [number(tag)];
        let body = &text.as_bytes()[..text.len().min(MAX - 1)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds;
        if let Some(fd) = fd {
            fds = [fd];
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&head), IoSlice::new(body)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; `None` when the other side is gone (or has become the user's program).
    pub(crate) fn receive(&self) -> io::Result<Option<Message>> {
        let mut buffer = [0; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => break got.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => break 0,
                Err(e) => return Err(e.into()),
            }
        };
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(tag) = buffer[..got].first().and_then(|n| TAGS.get(usize::from(*n))) else { return Ok(None) };
        Ok(Some(Message { tag: *tag, text: String::from_utf8_lossy(&buffer[1..got]).into_owned(), fd }))
    }

    /// A descriptor that arrives with bytes that are no message of ours (a console).
    pub(crate) fn receive_fd(&self) -> io::Result<Option<OwnedFd>> {
        let mut buffer = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        Ok(control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        }))
    }

    /// The descriptor itself.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The next message, which must have that tag.
    pub(crate) fn expect(&self, tag: Tag) -> io::Result<Message> {
        match self.receive()? {
            Some(message) if message.tag == tag => Ok(message),
            Some(message) => Err(io::Error::other(format!("out of turn: {:?} instead of {tag:?}", message.tag))),
            None => Err(io::Error::other("the other side is gone")),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends one descriptor and some bytes over a connected stream socket (pidfd, seccomp listener, pty).
pub(crate) fn send_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Connects to a unix socket by path, also when the path is longer than an address may be.
pub(crate) fn connect(path: &std::path::Path) -> io::Result<OwnedFd> {
    use std::os::unix::net::UnixStream;
    if path.as_os_str().len() < 100 {
        return Ok(UnixStream::connect(path)?.into());
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let dir = std::fs::File::open(dir)?;
    let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    Ok(UnixStream::connect(std::path::Path::new(&short).join(name))?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_and_end() {
        let (a, b) = Link::pair().unwrap();
        a.send(Tag::Failed, "because").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send_with(Tag::Notify, "", Some(file.as_fd())).unwrap();
        drop(a);
        let first = b.receive().unwrap().unwrap();
        assert_eq!((first.tag, first.text.as_str()), (Tag::Failed, "because"));
        assert!(b.expect(Tag::Notify).unwrap().fd.is_some());
        assert!(b.receive().unwrap().is_none());
    }
}
