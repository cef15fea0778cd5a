//! A process of the container and its three streams, seen from the shim.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use oci::shim::Size;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use sys::process::Ended;

use crate::error::Error;
use crate::json_log::Stream;
use crate::runtime_cli::{Stdio3, pipe};

/// Bytes of stdin kept for a process that does not read; clients wait beyond that.
const STDIN_QUEUE: usize = 64 << 10;

/// Which process: 0 is the container's first one, the others are execs.
pub(crate) type Key = u32;
/// The first process.
pub(crate) const INIT: Key = 0;

pub(crate) struct Process {
    pub(crate) key: Key,
    /// Exec id; empty for the first process.
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) io: Io,
    pub(crate) ended: Option<Ended>,
}

/// The shim's ends.
#[derive(Default)]
pub(crate) struct Io {
    /// stdout and stderr; a terminal's master is in the first place.
    pub(crate) output: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    queue: Vec<u8>,
    close_when_written: bool,
    terminal: bool,
}

/// What reading one stream gave.
pub(crate) enum Got {
    Bytes(usize),
    Nothing,
    End,
}

impl Io {
    /// Pipes for a process: the shim's ends, and the other ends for the runtime. The owner may open them by /dev/stdout
    /// and so on: root of a user namespace, who is not our root.
    pub(crate) fn pipes(stdin: bool, owner: Option<(u32, u32)>) -> Result<(Self, Stdio3), Error> {
        let (stdout, out) = pipe()?;
        let (stderr, err) = pipe()?;
        let mut io = Self { output: [Some(stdout), Some(stderr)], ..Self::default() };
        let mut input = Stdio::null();
        if stdin {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|errno| Error::System { step: "pipe", source: errno.into() })?;
            sys::fd::set_nonblocking(&writer).map_err(Error::system("pipe"))?;
            input = Stdio::from(reader);
            io.stdin = Some(writer);
        }
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            for end in io.output.iter().chain([&io.stdin]).flatten() {
                rustix::fs::fchown(end, Some(uid), Some(gid))
                    .map_err(|errno| Error::System { step: "give a pipe away", source: errno.into() })?;
            }
        }
        Ok((io, Stdio3 { stdin: input, stdout: Stdio::from(out), stderr: Some(Stdio::from(err)) }))
    }

    /// A terminal's master.
    pub(crate) fn terminal(master: OwnedFd, size: Option<Size>) -> Result<Self, Error> {
        if let Some(size) = size {
            sys::pty::set_size(&master, size.width, size.height).map_err(Error::system("set the terminal's size"))?;
        }
        let stdin = rustix::io::fcntl_dupfd_cloexec(&master, 0)
            .map_err(|errno| Error::System { step: "dup", source: errno.into() })?;
        Ok(Self { output: [Some(master), None], stdin: Some(stdin), terminal: true, ..Self::default() })
    }

    pub(crate) fn resize(&self, size: Size) -> std::io::Result<()> {
        match &self.output[0] {
            Some(master) if self.terminal => sys::pty::set_size(master, size.width, size.height),
            _ => Ok(()),
        }
    }

    /// Reads one stream; at its end it is closed.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Got {
        let Some(fd) = &self.output[stream as usize] else { return Got::End };
        match rustix::io::read(fd, buffer) {
            Ok(0) => {}
            Ok(count) => return Got::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => return Got::Nothing,
            // EIO: nobody has the terminal open any more. It may be opened again, but only by a live container.
            Err(Errno::IO) if self.terminal => return Got::End,
            Err(_) => {}
        }
        self.output[stream as usize] = None;
        Got::End
    }

    /// Whether clients should be asked for more stdin.
    pub(crate) fn wants_stdin(&self) -> bool {
        self.stdin.is_none() || self.queue.len() < STDIN_QUEUE
    }

    /// A descriptor that has something to be written.
    pub(crate) fn pending_stdin(&self) -> Option<BorrowedFd<'_>> {
        if self.queue.is_empty() { None } else { self.stdin.as_ref().map(AsFd::as_fd) }
    }

    pub(crate) fn queue_stdin(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.close_when_written {
            self.queue.extend_from_slice(bytes);
            self.write_stdin();
        }
    }

    /// End of file for the process, after what is queued. A terminal gets its end-of-file character.
    pub(crate) fn end_stdin(&mut self) {
        if self.terminal {
            self.queue_stdin(&[4]);
            return;
        }
        self.close_when_written = true;
        self.write_stdin();
    }

    pub(crate) fn write_stdin(&mut self) {
        while let Some(fd) = &self.stdin {
            if self.queue.is_empty() {
                break;
            }
            match rustix::io::write(fd, &self.queue) {
                Ok(count) => {
                    self.queue.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // EPIPE: it does not read any more.
                    self.stdin = None;
                    self.queue = Vec::new();
                }
            }
        }
        if self.queue.capacity() > 4096 {
            self.queue = Vec::new();
        }
        if self.close_when_written {
            self.stdin = None;
        }
    }
}
