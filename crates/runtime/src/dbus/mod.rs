//! D-Bus, as much of it as talking to systemd takes: method calls, their answers and one kind of signal, over a blocking
//! socket. zbus marshals; of its connections we have none, since they bring threads or an async runtime into a program that
//! must have neither.

mod wire;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use wire::{ERROR, Message, RETURN, SIGNAL, encode};
use zbus::Type;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not a D-Bus message: {0}")]
    Message(#[from] zbus::Error),
    #[error("{message} ({name})")]
    Remote { name: String, message: String },
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects to a socket. On a bus (not systemd's own socket) a name has to be asked for first.
    pub(crate) fn connect(path: &Path, is_bus: bool) -> Result<Self, BusError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut bus = Self { stream, serial: 0, signals: vec![] };
        bus.authenticate()?;
        if is_bus {
            const NAME: &str = "org.freedesktop.DBus";
            bus.call(NAME, "/org/freedesktop/DBus", NAME, "Hello", &())?;
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.call(NAME, "/org/freedesktop/DBus", NAME, "AddMatch", &(rule,))?;
        }
        Ok(bus)
    }

    /// Who we are the other side reads from the socket; the empty answer says so, in user namespaces too.
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let refused = || io::Error::new(io::ErrorKind::PermissionDenied, "D-Bus refuses the login");
        for _ in 0..4 {
            let line = self.line()?;
            if line.starts_with(b"OK ") {
                return Ok(());
            }
            if !line.starts_with(b"DATA") {
                return Err(refused());
            }
        }
        Err(refused())
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = vec![];
        while !line.ends_with(b"\r\n") && line.len() < 256 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(line)
    }

    /// Calls a method and returns the strings of its answer.
    pub(crate) fn call(
        &mut self,
        name: &str,
        path: &str,
        interface: &str,
        member: &str,
        args: &(impl Serialize + Type),
    ) -> Result<Vec<String>, BusError> {
        self.serial += 1;
        self.stream.write_all(&encode(self.serial, [name, path, interface, member], args)?)?;
        loop {
            let message = self.read()?;
            match message.kind {
                SIGNAL => self.signals.push(message),
                RETURN if message.answers == self.serial => return Ok(message.body),
                ERROR if message.answers == self.serial => {
                    let text = message.body.into_iter().next().unwrap_or_default();
                    return Err(BusError::Remote { name: message.error, message: text });
                }
                _ => {}
            }
        }
    }

    /// Waits for a signal whose strings fulfil a condition.
    pub(crate) fn signal(&mut self, member: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>, BusError> {
        let end = std::time::Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.signals.iter().position(|m| m.member == member && wanted(&m.body)) {
                return Ok(self.signals.swap_remove(at).body);
            }
            if std::time::Instant::now() > end {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT).into());
            }
            let message = self.read()?;
            if message.kind == SIGNAL {
                self.signals.push(message);
            }
        }
    }

    fn read(&mut self) -> Result<Message, BusError> {
        let mut header = vec![0; wire::PREFIX];
        self.stream.read_exact(&mut header)?;
        let (header_length, body_length) = wire::lengths(&header)?;
        header.resize(header_length, 0);
        let mut body = vec![0; body_length];
        self.stream.read_exact(header.get_mut(wire::PREFIX..).unwrap_or_default())?;
        self.stream.read_exact(&mut body)?;
        Ok(Message::parse(&header, &body)?)
    }
}
