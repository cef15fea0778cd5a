//! One connection to the shim: what it wants, and a bounded buffer of what it has not read yet.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use oci::shim::{Decoder, Kind, encode};

use crate::json_log::Stream;
use crate::process::{INIT, Key};

/// Bytes kept for a client; when there are more, its process's output is not read for a moment.
const HIGH_WATER: usize = 256 << 10;
/// A client that holds the container up and takes nothing for this long is dropped. Its data is in the log.
const STALL: Duration = Duration::from_secs(1);

pub(crate) type Id = u32;

/// What a connection turned into with its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    New,
    /// The supervisor that started this shim; the container is undone if it goes before the start.
    Control,
    /// Streams of a process.
    Stdio {
        process: Key,
        stdin: bool,
        output: [bool; 2],
    },
    /// Its exec is being started.
    ExecPending,
    Wait,
}

pub(crate) struct Client {
    pub(crate) id: Id,
    pub(crate) role: Role,
    socket: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    full_since: Option<Instant>,
    /// Close when all is written.
    pub(crate) closing: bool,
    pub(crate) gone: bool,
}

impl Client {
    pub(crate) fn new(id: Id, socket: UnixStream, role: Role) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            id,
            role,
            socket,
            decoder: Decoder::default(),
            out: Vec::new(),
            written: 0,
            full_since: None,
            closing: false,
            gone: false,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    pub(crate) fn has_output(&self) -> bool {
        self.unsent() > 0
    }

    /// Whether its process should not be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent() > HIGH_WATER
    }

    /// When a full client will have waited long enough.
    pub(crate) fn stall_deadline(&self) -> Option<Instant> {
        self.full_since.map(|since| since + STALL)
    }

    /// Drops the client if it held the container up for too long. Only the first process's clients: an exec belongs
    /// to its client, it may wait for it.
    pub(crate) fn drop_if_stalled(&mut self, now: Instant) {
        let attached = matches!(self.role, Role::Stdio { process: INIT, .. });
        if attached && self.stall_deadline().is_some_and(|deadline| deadline <= now) {
            self.gone = true;
        }
    }

    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        if self.gone || self.closing {
            return;
        }
        encode(kind, payload, &mut self.out);
        self.flush();
    }

    pub(crate) fn send_json<T: serde::Serialize>(&mut self, kind: Kind, message: &T) {
        match serde_json::to_vec(message) {
            Ok(bytes) => self.send(kind, &bytes),
            Err(_) => self.gone = true,
        }
    }

    /// Output of `process`, if this client wants it.
    pub(crate) fn output(&mut self, process: Key, stream: Stream, data: &[u8]) {
        if let Role::Stdio { process: own, output, .. } = self.role
            && own == process
            && output[stream as usize]
        {
            self.send(if stream == Stream::Stdout { Kind::Stdout } else { Kind::Stderr }, data);
        }
    }

    pub(crate) fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.full_since = None;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
            self.gone |= self.closing;
        } else if self.written > HIGH_WATER {
            self.out.drain(..self.written);
            self.written = 0;
        }
        if self.is_full() {
            self.full_since.get_or_insert_with(Instant::now);
        } else {
            self.full_since = None;
        }
    }

    /// Ends the connection once everything is written.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.flush();
    }

    /// Reads what is there; `gone` at the end of the stream.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) {
        match self.socket.read(buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => self.decoder.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
    }

    /// The next whole frame; a client that talks nonsense is dropped.
    pub(crate) fn next_frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        match self.decoder.next_frame() {
            Ok(frame) => frame,
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }
}
