//! What a supervisor and a shim say to each other over the shim's private unix socket: frames and messages, no I/O.
//!
//! A frame is one byte of [`Kind`], the payload's length (u32, big endian) and the payload. `Request`, `Reply` and
//! `Exit` carry JSON; the stdio kinds carry raw bytes.
//!
//! ```text
//! supervisor                              shim
//!   Request(Launch) ───────────────────▶  mounts, writes config.json, runtime create
//!   ◀──────────────────── Reply(Created)
//!   Request(Start)  ───────────────────▶  runtime start          (the connection closed before: all is undone)
//!   ◀──────────────────── Reply(Started)
//! any client, one connection each: Attach | Exec | Wait | Signal | Pause | Resume | Resize
//!   Stdin* StdinEof Resize* ───────────▶
//!   ◀────────── Reply, (Stdout|Stderr)*, Exit
//! ```

use serde::{Deserialize, Serialize};

/// Largest payload accepted.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Bytes before the payload.
pub const HEADER: usize = 5;
/// Name of the socket in the container's run directory.
pub const SOCKET: &str = "shim.sock";
/// Descriptor on which a new shim finds its first connection.
pub const CONTROL_FD: i32 = 3;

/// Bytes after which the journal of events is rotated, and files of it that are kept.
pub const JOURNAL_LIMITS: (u64, u32) = (8 << 20, 4);

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON [`Request`].
    Request = 1,
    /// JSON [`Reply`].
    Reply = 2,
    /// Bytes for the process's stdin.
    Stdin = 3,
    /// No more stdin: the process reads end of file.
    StdinEof = 4,
    /// JSON [`Size`].
    Resize = 5,
    /// Bytes of stdout, or of the terminal.
    Stdout = 6,
    /// Bytes of stderr.
    Stderr = 7,
    /// JSON [`Exit`]: the last frame.
    Exit = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Exit, Reply, Request, Resize, Stderr, Stdin, StdinEof, Stdout};
        [Request, Reply, Stdin, StdinEof, Resize, Stdout, Stderr, Exit].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Terminal size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A mount of the rootfs, target relative to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMount {
    /// "overlay", "bind", ...
    pub fstype: String,
    /// Host path or label.
    pub source: String,
    /// "" is the rootfs itself.
    pub target: String,
    /// Words of mount(8).
    pub options: Vec<String>,
}

/// A host file that is bind-mounted over a container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// On the host.
    pub source: String,
    /// Absolute, in the container.
    pub target: String,
}

/// Where and how the log is written (docker's json-file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Current file; older ones get ".1", ".2", ...
    pub path: String,
    /// Bytes after which it is rotated; 0: never.
    pub max_size: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
}

/// Everything a shim needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Container id.
    pub id: String,
    /// Number of this run: 1 for the first start.
    pub run: u64,
    /// The container's data directory: oci.json (as given), bundle/, exit.json.
    pub container_dir: String,
    /// The container's run directory: socket, run.json, runtime logs.
    pub run_dir: String,
    /// File that appears, locked by the shim, while the container is there.
    pub presence: String,
    /// Journal that events are appended to.
    pub journal: String,
    /// Attributes of every event (name, image, labels).
    pub attributes: std::collections::BTreeMap<String, String>,
    /// OCI runtime binary, absolute.
    pub runtime: String,
    /// Before the verb.
    pub runtime_args: Vec<String>,
    /// Runtime's state directory.
    pub runtime_root: String,
    /// Empty: root.path of the configuration is used.
    pub rootfs: Vec<RootfsMount>,
    /// Injected files.
    pub files: Vec<FileMount>,
    /// See `oci::user::resolve`; empty: process.user as it is.
    pub user: String,
    /// Names or numbers.
    pub additional_groups: Vec<String>,
    /// `None`: no log.
    pub log: Option<LogFile>,
    /// Size of the terminal at the start.
    pub size: Option<Size>,
    /// Keep stdin open for attach; else it is /dev/null.
    pub open_stdin: bool,
    /// Close stdin when the first client that sends stdin leaves.
    pub stdin_once: bool,
}

/// Attaching to the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// This client sends stdin.
    pub stdin: bool,
    /// Wants stdout.
    pub stdout: bool,
    /// Wants stderr.
    pub stderr: bool,
}

/// One more process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Unique within the container.
    pub id: String,
    /// runtime-spec's `process` object.
    pub process: serde_json::Value,
    /// Keep stdin open.
    pub stdin: bool,
    /// Nobody listens to it.
    pub detach: bool,
    /// Initial terminal size.
    pub size: Option<Size>,
}

/// First frame of a client; the control connection sends several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Control connection only.
    Launch(Box<Launch>),
    /// Control connection only.
    Start,
    /// Replies `Ok`, then streams.
    Attach(Attach),
    /// Replies `Started`, then streams, unless detached.
    Exec(Box<Exec>),
    /// To the first process.
    Signal {
        /// 1 to 64.
        number: i32,
    },
    /// Freezes all processes.
    Pause,
    /// Thaws them.
    Resume,
    /// An `Exit` frame follows when the container has ended and that is on disk.
    Wait,
    /// Of a terminal.
    Resize {
        /// `None`: the first process.
        exec: Option<String>,
        /// New size.
        size: Size,
    },
}

/// What went wrong, in a class that the caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The OCI runtime said no.
    Runtime,
    /// A rootfs mount failed.
    Mount,
    /// The user or a group is not known in the rootfs.
    User,
    /// The configuration cannot be used.
    Config,
    /// No such exec, or the process is gone.
    NotFound,
    /// Anything else.
    Internal,
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok,
    /// The container is there and waits for `Start`.
    Created {
        /// Host pid of the first process.
        pid: i32,
    },
    /// It runs.
    Started {
        /// Host pid.
        pid: i32,
    },
    /// Not done; nothing was left behind.
    Error {
        /// Class.
        failure: Failure,
        /// For people.
        message: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Status, or 128 + signal.
    pub code: i32,
    /// 0: none.
    pub signal: i32,
    /// The kernel's OOM killer acted in the container.
    pub oom_killed: bool,
}

/// exit.json: the durable record of one run's end. It stands on disk before anybody is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Which run.
    pub run: u64,
    /// How.
    #[serde(flatten)]
    pub exit: Exit,
    /// RFC 3339; empty when it never started.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// Why, when not by itself.
    #[serde(default)]
    pub error: String,
}

/// run.json: what the shim says of a live container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which run.
    pub run: u64,
    /// First process, host pid.
    pub pid: i32,
    /// RFC 3339; empty until it is started.
    pub started_at: String,
}

/// A line of the journal of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// "start", "die", ...
    pub action: String,
    /// Container id.
    pub id: String,
    /// Name, image, exitCode, labels.
    #[serde(default)]
    pub attributes: std::collections::BTreeMap<String, String>,
}

/// Appends one frame to `out`.
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    out.reserve(HEADER + payload.len());
    out.push(kind as u8);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
}

/// One frame with a JSON message, as bytes.
pub fn message<T: Serialize>(kind: Kind, message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    encode(kind, &serde_json::to_vec(message)?, &mut out);
    Ok(out)
}

/// The other side does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFrame {
    /// First byte.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Above [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes is too large")]
    Length(usize),
}

/// Splits a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<(Kind, Vec<u8>)>, InvalidFrame> {
        let [kind, a, b, c, d, ..] = self.buffer[..] else { return Ok(None) };
        let kind = Kind::from_byte(kind).ok_or(InvalidFrame::Kind(kind))?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_PAYLOAD {
            return Err(InvalidFrame::Length(length));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(HEADER + length);
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        frame.drain(..HEADER);
        Ok(Some((kind, frame)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        encode(Kind::Stdout, b"hello", &mut wire);
        encode(Kind::StdinEof, b"", &mut wire);
        wire.extend(message(Kind::Request, &Request::Signal { number: 9 }).unwrap());
        for cut in 1..wire.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames[0], (Kind::Stdout, b"hello".to_vec()));
            assert_eq!(frames[1], (Kind::StdinEof, Vec::new()));
            let request: Request = serde_json::from_slice(&frames[2].1).unwrap();
            assert_eq!(request, Request::Signal { number: 9 });
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(b"GET / HTTP/1.1");
        assert_eq!(decoder.next_frame(), Err(InvalidFrame::Kind(b'G')));
        let mut decoder = Decoder::default();
        decoder.push(&[3, 0xff, 0, 0, 0]);
        assert!(matches!(decoder.next_frame(), Err(InvalidFrame::Length(_))));
    }
}
