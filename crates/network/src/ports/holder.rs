//! The process that holds the sockets of all published ports of a stack.
//!
//! It is started with the first published port, by whoever publishes it, and ends with the last; it outlives daemons.
//! Requests come as lines of JSON on `<run>/network/ports.sock`, from processes that hold the stack's lock. It keeps
//! nothing on disk: when it dies, the next reconcile starts it again from the records.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bound::{self, Refused};
use super::shared::Owner;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::PortMapping;

/// The argument that makes the program the holder.
pub const HOLD_PORTS: &str = "hold-ports";
/// The descriptor that the listening socket comes by.
const LISTENER: i32 = 3;
/// A request is a line; whoever does not finish one, or take its answer, in this time is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports by the id of their endpoint.
pub(crate) type Held = BTreeMap<String, Vec<PortMapping>>;

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// These endpoints' ports, in place of what they had. All or nothing.
    Hold(Held),
    /// These endpoints have none any more.
    Drop(Vec<String>),
    /// Exactly these; what cannot be had is named, the others are held.
    Keep(Held),
}

type Answer = Result<Vec<(PortMapping, Refused)>, (PortMapping, Refused)>;

/// Where the holder of a stack is asked, and how one is started.
pub(crate) struct Holder<'a> {
    program: &'a Path,
    socket: PathBuf,
    owner: Owner,
}

impl<'a> Holder<'a> {
    /// None where nobody is to hold ports.
    pub(crate) fn of(config: &'a Config) -> Option<Self> {
        let program = config.holder.as_deref()?;
        Some(Self { program, socket: config.holder_socket(), owner: config.port_owner() })
    }

    /// Asks for the ports of an endpoint, in place of what it had. Starts the holder when there is none.
    ///
    /// # Errors
    /// [`Error::PortTaken`], [`Error::NoSuchAddress`], [`Error::PortPrivileged`]; what was held before is held still.
    pub(crate) fn hold(&self, endpoint: &str, ports: &[PortMapping]) -> Result<()> {
        let held = Held::from([(endpoint.to_owned(), ports.to_vec())]);
        let answer = self.ask_or_start(&Request::Hold(held))?;
        answer.map(drop).map_err(|(port, refused)| super::error_of(port, refused))
    }

    /// Gives ports back; fine when there is no holder.
    pub(crate) fn release(&self, endpoint: &str) {
        let _ = ask(&self.socket, &Request::Drop(vec![endpoint.to_owned()]));
    }

    /// Makes the holder hold exactly these. Returns what somebody else has meanwhile.
    ///
    /// # Errors
    /// The holder cannot be started.
    pub(crate) fn keep(&self, held: Held) -> Result<Vec<(PortMapping, Refused)>> {
        if held.is_empty() && UnixStream::connect(&self.socket).is_err() {
            return Ok(Vec::new());
        }
        let answer = self.ask_or_start(&Request::Keep(held))?;
        Ok(answer.unwrap_or_else(|one| vec![one]))
    }

    /// A holder that is there is never replaced, however a request to it ends: the next one would not have its sockets.
    fn ask_or_start(&self, request: &Request) -> Result<Answer> {
        let step = || Error::kernel("ask the holder of published ports");
        match ask(&self.socket, request) {
            Err(error) if UnixStream::connect(&self.socket).is_ok() => Err(step()(error)),
            Err(_) => {
                self.start().map_err(Error::kernel("start the holder of published ports"))?;
                ask(&self.socket, request).map_err(step())
            }
            Ok(answer) => Ok(answer),
        }
    }

    /// Starts the holder on a socket that takes requests from now on. The caller holds the stack's lock.
    fn start(&self) -> io::Result<()> {
        let socket = &self.socket;
        if let Some(dir) = socket.parent() {
            std::fs::create_dir_all(dir)?;
        }
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let mut command = Command::new(self.program);
        command.arg(HOLD_PORTS).arg(socket).arg(self.owner.word()).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::process::pass_fd(&mut command, OwnedFd::from(listener), LISTENER);
        // It goes on as a process of nobody, and this one ends at once.
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{}: {status}", self.program.display()))) }
    }
}

fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// The holder itself: first thing in `main`, before there is a second thread.
///
/// # Errors
/// It was not started as the holder.
pub fn run() -> io::Result<()> {
    let listener = UnixListener::from(sys::process::inherited_fd(LISTENER)?);
    sys::process::detach()?;
    sys::process::set_name("pier-ports");
    raise_limit();
    // Behind the socket's path.
    let owner = std::env::args_os().nth(3).and_then(|word| Owner::of_word(word.to_str()?));
    let mut sockets = Sockets::new();
    loop {
        let (stream, _) = listener.accept()?;
        // A client that gives up is its own trouble.
        let _ = serve(&stream, &mut sockets, owner);
        if sockets.is_empty() {
            // Whoever connects now finds nobody and starts the next one.
            return Ok(());
        }
    }
}

fn serve(stream: &UnixStream, sockets: &mut Sockets, owner: Option<Owner>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Answer = match serde_json::from_str(&line)? {
        Request::Hold(held) => take(sockets, held, owner).map(|()| Vec::new()),
        Request::Drop(endpoints) => {
            endpoints.iter().for_each(|endpoint| drop(sockets.remove(endpoint)));
            Ok(Vec::new())
        }
        Request::Keep(held) => {
            sockets.retain(|endpoint, _| held.contains_key(endpoint));
            let one = |(endpoint, ports)| take(sockets, Held::from([(endpoint, ports)]), owner).err();
            Ok(held.into_iter().filter_map(one).collect())
        }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let mut stream = stream;
    stream.write_all(&line)
}

type Sockets = BTreeMap<String, Vec<(PortMapping, Vec<OwnedFd>)>>;

/// Binds what is not bound yet, then lets go of what is not wanted any more.
fn take(sockets: &mut Sockets, held: Held, owner: Option<Owner>) -> Result<(), (PortMapping, Refused)> {
    let mut fresh = Vec::new();
    for (endpoint, ports) in &held {
        let has = sockets.get(endpoint).map(Vec::as_slice).unwrap_or_default();
        for port in ports.iter().filter(|port| !has.iter().any(|(own, _)| own == *port)) {
            let bound = bound::all(port, owner).map_err(|refused| (port.clone(), refused))?;
            fresh.push((endpoint.clone(), (port.clone(), bound)));
        }
    }
    for (endpoint, ports) in held {
        let own = sockets.entry(endpoint).or_default();
        own.retain(|(port, _)| ports.contains(port));
    }
    for (endpoint, one) in fresh {
        sockets.entry(endpoint).or_default().push(one);
    }
    sockets.retain(|_, own| !own.is_empty());
    Ok(())
}

fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
