//! Bytes between this terminal and a process, until one of them is done. Attach and exec differ only in their messages.

use std::io::Write;

use api::supervisor::v1::{
    AttachOpen, AttachRequest, AttachResponse, ExecOpen, ExecRequest, ExecResponse, ExitStatus, StdioChunk,
    StdioStream, TerminalSize, attach_request, attach_response, exec_request, exec_response,
};
use tokio::sync::mpsc::{Receiver, Sender};
use tonic::Status;

use super::keys::DetachKeys;
use super::{signals, stdin, terminal};

/// What goes to the process.
pub enum Input {
    Data(Vec<u8>),
    Close,
    Resize(TerminalSize),
}

/// What comes from it.
pub enum Output {
    Chunk(StdioChunk),
    Exit(ExitStatus),
    Other,
}

/// Requests of a stream with stdio.
pub trait Request: Sized + Send + 'static {
    fn input(input: Input) -> Self;
}

/// Responses of one.
pub trait Response {
    fn output(self) -> Output;
}

/// The messages of attach and of exec are the same but for their names.
macro_rules! stdio {
    ($request:ident, $requests:ident, $response:ident, $responses:ident) => {
        impl Request for $request {
            fn input(input: Input) -> Self {
                use $requests::Payload;
                Self {
                    payload: Some(match input {
                        Input::Data(data) => Payload::Stdin(data.into()),
                        Input::Close => Payload::CloseStdin(true),
                        Input::Resize(size) => Payload::Resize(size),
                    }),
                }
            }
        }

        impl Response for $response {
            fn output(self) -> Output {
                match self.payload {
                    Some($responses::Payload::Output(chunk)) => Output::Chunk(chunk),
                    Some($responses::Payload::Exit(status)) => Output::Exit(status),
                    _ => Output::Other,
                }
            }
        }
    };
}

stdio!(AttachRequest, attach_request, AttachResponse, attach_response);
stdio!(ExecRequest, exec_request, ExecResponse, exec_response);

/// The first request of an attach.
pub fn attach_open(open: AttachOpen) -> AttachRequest {
    AttachRequest { payload: Some(attach_request::Payload::Open(open)) }
}

/// The first request of an exec.
pub fn exec_open(open: ExecOpen) -> ExecRequest {
    ExecRequest { payload: Some(exec_request::Payload::Open(open)) }
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The process ended.
    Exit(i32),
    /// The user typed the detach keys.
    Detached,
    /// The server went away; the process may live on.
    Lost(Status),
    /// A signal ended this program.
    Signal(&'static str),
}

/// This side of a session. It outlives a lost connection: stdin is read once.
pub struct Session {
    stdin: Option<Receiver<Vec<u8>>>,
    closed: bool,
    tty: bool,
    keys: DetachKeys,
    _raw: Option<terminal::Raw>,
    ending: Option<Receiver<&'static str>>,
    proxied: Option<Receiver<&'static str>>,
}

/// What to join.
pub struct Wish {
    pub stdin: bool,
    pub tty: bool,
    pub sig_proxy: bool,
    pub keys: DetachKeys,
}

impl Session {
    /// Takes the terminal over; it is given back when the session is dropped.
    pub fn begin(wish: Wish) -> anyhow::Result<Self> {
        let raw = (wish.tty && wish.stdin && terminal::is_stdin()).then(terminal::Raw::enter).transpose()?;
        // In raw mode the keys send no signals; one from outside ends this program with the terminal restored.
        let ending = raw.is_some().then(signals::ending).transpose()?;
        let proxied = (raw.is_none() && wish.sig_proxy).then(signals::proxied).transpose()?;
        Ok(Self {
            stdin: wish.stdin.then(stdin::chunks),
            closed: false,
            tty: wish.tty,
            keys: wish.keys,
            _raw: raw,
            ending,
            proxied,
        })
    }

    /// Carries bytes until the end; `kill` is called with the names of signals to pass on.
    pub async fn carry<Q: Request, R: Response>(
        &mut self,
        requests: &Sender<Q>,
        responses: &mut tonic::Streaming<R>,
        kill: impl AsyncFn(&str),
    ) -> anyhow::Result<End> {
        let mut resized = if self.tty { Some(signals::window_changes()?) } else { None };
        loop {
            let step = tokio::select! {
                message = responses.message() => Step::Message(message),
                chunk = next(&mut self.stdin), if !self.closed => Step::Typed(chunk),
                Some(()) = changed(&mut resized) => Step::Resized,
                Some(name) = receive(&mut self.proxied) => Step::Proxy(name),
                Some(name) = receive(&mut self.ending) => return Ok(End::Signal(name)),
            };
            match step {
                Step::Message(Ok(Some(message))) => match message.output() {
                    Output::Chunk(chunk) => write(&chunk)?,
                    Output::Exit(status) => return Ok(End::Exit(exit_code(&status))),
                    Output::Other => {}
                },
                Step::Message(Ok(None)) => return Ok(End::Lost(Status::unavailable("the stream ended early"))),
                Step::Message(Err(status)) => return Ok(End::Lost(status)),
                Step::Typed(chunk) => {
                    if self.typed(chunk, requests).await {
                        return Ok(End::Detached);
                    }
                }
                Step::Resized => {
                    if let Some(size) = terminal::size() {
                        let _ = requests.send(Q::input(Input::Resize(size))).await;
                    }
                }
                Step::Proxy(name) => kill(name).await,
            }
        }
    }

    /// Passes typed bytes on; true when they are the detach keys.
    async fn typed<Q: Request>(&mut self, chunk: Option<Vec<u8>>, requests: &Sender<Q>) -> bool {
        let Some(bytes) = chunk else {
            self.closed = true;
            let _ = requests.send(Q::input(Input::Close)).await;
            return false;
        };
        let (pass, detach) = if self.tty { self.keys.feed(&bytes) } else { (bytes, false) };
        if !pass.is_empty() {
            let _ = requests.send(Q::input(Input::Data(pass))).await;
        }
        detach
    }
}

enum Step<R> {
    Message(Result<Option<R>, Status>),
    Typed(Option<Vec<u8>>),
    Resized,
    Proxy(&'static str),
}

/// The next chunk of stdin; never, when stdin is not wanted.
async fn next(stdin: &mut Option<Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive(names: &mut Option<Receiver<&'static str>>) -> Option<&'static str> {
    match names {
        Some(names) => names.recv().await,
        None => std::future::pending().await,
    }
}

async fn changed(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// A chunk to this program's own stdout or stderr.
pub fn write(chunk: &StdioChunk) -> std::io::Result<()> {
    if chunk.stream() == StdioStream::Stderr {
        let mut stderr = std::io::stderr().lock();
        stderr.write_all(&chunk.data)?;
        return stderr.flush();
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&chunk.data)?;
    stdout.flush()
}

/// A shell's exit code: 128 and the signal, when one ended the process.
pub fn exit_code(status: &ExitStatus) -> i32 {
    if status.exit_code == 0 && status.exit_signal > 0 { 128 + status.exit_signal } else { status.exit_code }
}
