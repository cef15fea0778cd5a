//! Talking to a shim: one request and its reply, or a stream of frames.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oci::shim::{Decoder, Exit, Failure, Kind, Reply, Request, SOCKET, message};

use crate::Supervisor;
use crate::error::{Error, StartFailure};

/// Longest wait for an answer: an OCI runtime may have to do something first.
pub(crate) const ANSWER: Duration = Duration::from_secs(120);

/// A blocking connection.
pub(crate) struct Connection {
    id: String,
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    pub(crate) fn new(id: &str, stream: UnixStream) -> Self {
        Self { id: id.to_owned(), stream, decoder: Decoder::default() }
    }

    pub(crate) fn request(&mut self, request: &Request) -> Result<Reply, Error> {
        self.send(request)?;
        match self.frame(Some(ANSWER))? {
            (Kind::Reply, payload) => serde_json::from_slice(&payload).map_err(|error| self.broken(error.to_string())),
            (kind, _) => Err(self.broken(format!("sent {kind:?} instead of a reply"))),
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Error> {
        let bytes = message(Kind::Request, request).map_err(|error| self.broken(error.to_string()))?;
        self.stream.write_all(&bytes).map_err(|error| self.broken(error.to_string()))
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, timeout: Option<Duration>) -> Result<(Kind, Vec<u8>), Error> {
        let mut buffer = [0_u8; 4096];
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(self.broken(error.to_string())),
            }
            self.stream.set_read_timeout(timeout).map_err(|error| self.broken(error.to_string()))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.broken("it closed the connection".into())),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(self.broken("no answer in time".into()));
                }
                Err(error) => return Err(self.broken(error.to_string())),
            }
        }
    }

    /// For whoever goes on with the stream: the socket, and what was read ahead.
    pub(crate) fn into_parts(self) -> (UnixStream, Decoder) {
        (self.stream, self.decoder)
    }

    pub(crate) fn broken(&self, message: String) -> Error {
        Error::Shim { id: self.id.clone(), message }
    }
}

impl Supervisor {
    pub(crate) fn connect(&self, id: &str) -> Result<Connection, Error> {
        let stream = sys::fd::connect(&self.store().run_dir(id), SOCKET)
            .map_err(|error| Error::Shim { id: id.to_owned(), message: format!("connect: {error}") })?;
        Ok(Connection::new(id, stream))
    }

    /// One request to the shim of `id`; an error reply becomes an error.
    pub(crate) fn ask(&self, id: &str, action: &'static str, request: &Request) -> Result<Reply, Error> {
        let reply = self.connect(id)?.request(request)?;
        accept(id, action, reply)
    }
}

/// Turns an error reply into an error.
pub(crate) fn accept(id: &str, action: &'static str, reply: Reply) -> Result<Reply, Error> {
    let Reply::Error { failure, message } = reply else { return Ok(reply) };
    let id = id.to_owned();
    Err(match failure {
        Failure::Runtime | Failure::Mount | Failure::User | Failure::Config => {
            let class = StartFailure::classify(&message);
            Error::Runtime { id, action, failure: class, message }
        }
        Failure::NotFound | Failure::Internal => Error::Shim { id, message },
    })
}

/// An `Exit` frame.
pub(crate) fn exit(payload: &[u8]) -> Exit {
    serde_json::from_slice(payload).unwrap_or(Exit { code: 255, ..Exit::default() })
}
