//! Streams to and from processes.

use oci::shim::{Attach, Decoder, Exit, Kind, Reply, Request, Size, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::shim_client::{Connection, accept};
use crate::{Error, LogOptions, Supervisor, blocking};

/// What an attached client wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// It sends stdin.
    pub stdin: bool,
    /// It wants stdout.
    pub stdout: bool,
    /// It wants stderr.
    pub stderr: bool,
    /// First what the log holds.
    pub logs: bool,
    /// Size of its terminal.
    pub size: Option<Size>,
}

/// What came from the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes; a terminal's too.
    Stdout(Vec<u8>),
    /// Bytes.
    Stderr(Vec<u8>),
    /// The end: the last one.
    Exit(Exit),
}

/// What goes to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes.
    Stdin(Vec<u8>),
    /// End of file.
    CloseStdin,
    /// New terminal size.
    Resize(Size),
}

/// A connection to a shim as frames.
pub(crate) struct ShimStream {
    id: String,
    reader: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl ShimStream {
    pub(crate) fn new(id: &str, connection: Connection) -> Result<Self, Error> {
        let (stream, decoder) = connection.into_parts();
        let broken = |error: std::io::Error| Error::Shim { id: id.to_owned(), message: error.to_string() };
        stream.set_read_timeout(None).map_err(broken)?;
        stream.set_nonblocking(true).map_err(broken)?;
        let (reader, writer) = UnixStream::from_std(stream).map_err(broken)?.into_split();
        Ok(Self { id: id.to_owned(), reader, writer: Some(writer), decoder, buffer: vec![0; 32 << 10] })
    }

    /// The next frame; `None` when the shim has closed. May be cancelled without losing anything.
    pub(crate) async fn frame(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Error> {
        loop {
            let broken = |message: String| Error::Shim { id: self.id.clone(), message };
            if let Some(frame) = self.decoder.next_frame().map_err(|error| broken(error.to_string()))? {
                return Ok(Some(frame));
            }
            match self.reader.read(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(&self.buffer[..count]),
                Err(error) => return Err(broken(error.to_string())),
            }
        }
    }
}

/// The two directions of an attached client.
pub struct Streams {
    id: String,
    stream: ShimStream,
    replay: std::collections::VecDeque<Output>,
}

/// The sending half.
pub struct InputSender {
    writer: OwnedWriteHalf,
}

impl Streams {
    pub(crate) fn new(id: &str, connection: Connection) -> Result<Self, Error> {
        let stream = ShimStream::new(id, connection)?;
        Ok(Self { id: id.to_owned(), stream, replay: std::collections::VecDeque::new() })
    }

    /// Takes the sending half; once.
    pub fn input(&mut self) -> Option<InputSender> {
        self.stream.writer.take().map(|writer| InputSender { writer })
    }

    /// The next output; `None` when the shim has gone without an exit (or dropped a client that did not read).
    pub async fn next(&mut self) -> Result<Option<Output>, Error> {
        if let Some(output) = self.replay.pop_front() {
            return Ok(Some(output));
        }
        loop {
            return Ok(match self.stream.frame().await? {
                Some((Kind::Stdout, bytes)) => Some(Output::Stdout(bytes)),
                Some((Kind::Stderr, bytes)) => Some(Output::Stderr(bytes)),
                Some((Kind::Exit, payload)) => Some(Output::Exit(crate::shim_client::exit(&payload))),
                Some((Kind::Reply, payload)) => {
                    if let Ok(reply @ Reply::Error { .. }) = serde_json::from_slice(&payload) {
                        accept(&self.id, "attach", reply)?;
                    }
                    continue;
                }
                Some(_) => continue,
                None => None,
            });
        }
    }
}

impl InputSender {
    /// Sends; waits while the process does not read.
    pub async fn send(&mut self, input: &Input) -> std::io::Result<()> {
        let mut frame = Vec::new();
        match input {
            Input::Stdin(bytes) => {
                for piece in bytes.chunks(32 << 10) {
                    encode(Kind::Stdin, piece, &mut frame);
                }
            }
            Input::CloseStdin => encode(Kind::StdinEof, &[], &mut frame),
            Input::Resize(size) => encode(Kind::Resize, &serde_json::to_vec(size)?, &mut frame),
        }
        self.writer.write_all(&frame).await
    }
}

/// A client that attached before the start.
pub(crate) struct Early {
    options: AttachOptions,
    connected: oneshot::Sender<Result<Connection, Error>>,
}

/// An attached client that may have to wait for the start.
pub enum Attached {
    /// It runs.
    Now(Streams),
    /// It is registered: the next start connects it before the first byte.
    Waiting(Pending),
}

/// See [`Attached::Waiting`].
pub struct Pending {
    id: String,
    connected: oneshot::Receiver<Result<Connection, Error>>,
}

impl Pending {
    /// Waits for the start. `None`: the supervisor forgot about it (the container was removed).
    pub async fn started(self) -> Result<Option<Streams>, Error> {
        match self.connected.await {
            Ok(connection) => Streams::new(&self.id, connection?).map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Supervisor {
    /// Attaches to the first process, or to the one that the next start *by this process* makes.
    pub async fn attach(&self, reference: &str, options: AttachOptions) -> Result<Attached, Error> {
        let id = self.store().resolve(reference)?;
        let seen = self.observe(&id)?;
        if !seen.status.is_live() {
            let (sender, connected) = oneshot::channel();
            let mut early = self.early();
            let waiting = early.entry(id.clone()).or_default();
            waiting.retain(|early| !early.connected.is_closed());
            waiting.push(Early { options, connected: sender });
            return Ok(Attached::Waiting(Pending { id, connected }));
        }
        let this = self.clone();
        let owned = id.clone();
        let connection = blocking(move || this.attach_now(&owned, options)).await?;
        let mut streams = Streams::new(&id, connection)?;
        if options.logs {
            streams.replay = self.replay(&id, options).await?;
        }
        Ok(Attached::Now(streams))
    }

    fn attach_now(&self, id: &str, options: AttachOptions) -> Result<Connection, Error> {
        let mut connection = self.connect(id)?;
        let attach = Attach { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
        accept(id, "attach", connection.request(&Request::Attach(attach))?)?;
        if let Some(size) = options.size {
            let _ = self.ask(id, "resize", &Request::Resize { exec: None, size });
        }
        Ok(connection)
    }

    /// Connects the clients that attached before the start: the container waits, so nothing is lost.
    pub(crate) fn attach_early(&self, id: &str) {
        let waiting = self.early().remove(id).unwrap_or_default();
        for early in waiting {
            let _ = early.connected.send(self.attach_now(id, early.options));
        }
    }

    /// What the log holds. Read after attaching: a line that comes in between is seen twice rather than never.
    async fn replay(&self, id: &str, options: AttachOptions) -> Result<std::collections::VecDeque<Output>, Error> {
        let wanted = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
        let mut entries = self.logs(id, wanted)?;
        let mut replay = std::collections::VecDeque::new();
        while let Some(entry) = entries.recv().await {
            let entry = entry?;
            replay.push_back(match entry.stream {
                crate::LogStream::Stdout => Output::Stdout(entry.data),
                crate::LogStream::Stderr => Output::Stderr(entry.data),
            });
        }
        Ok(replay)
    }
}
