//! How an attach or a daemon finds the keeper, or starts it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::Config;
use crate::error::{Error, Result};

/// How long a keeper may take to serve what is recorded.
const PATIENCE: Duration = Duration::from_secs(5);
/// A keeper that is about to end neither answers nor leaves its place for a moment.
const AGAIN: Duration = Duration::from_millis(5);

/// A keeper that was found or is being started, while the caller does something else.
pub(crate) enum Start {
    /// Nobody starts one here.
    None,
    /// It is there.
    Found(UnixStream),
    /// It says `ok` here.
    Started(Child),
}

impl Start {
    /// Looks for the keeper and starts it if there is none. Waits for nothing.
    pub(crate) fn begin(config: &Config) -> Result<Self> {
        match UnixStream::connect(config.keeper_socket()) {
            Ok(stream) => Ok(Self::Found(stream)),
            Err(_) if config.keeper.is_empty() => Ok(Self::None),
            Err(_) => spawn(config).map(Self::Started),
        }
    }

    /// Waits until what is recorded is served. One that was there already is not waited for, unless `fresh`: there
    /// is a network that it may not listen on yet.
    pub(crate) fn finish(self, config: &Config, fresh: bool) -> Result<()> {
        match self {
            Self::Found(_) if !fresh => Ok(()),
            Self::None => Ok(()),
            found => settle(config, found).map(drop),
        }
    }
}

/// A connection to a keeper that serves what is recorded; one is started if there is none.
pub(crate) fn connect(config: &Config) -> Result<Option<UnixStream>> {
    settle(config, Start::begin(config)?)
}

fn settle(config: &Config, mut start: Start) -> Result<Option<UnixStream>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match start {
            Start::None => return Ok(None),
            Start::Found(stream) => {
                if says_ok(&stream, deadline).map_err(Error::io(&config.keeper_socket()))? {
                    return Ok(Some(stream));
                }
            }
            Start::Started(mut child) => {
                let ready = child
                    .stdout
                    .take()
                    .map_or(Ok(false), |pipe| says_ok(&File::from(std::os::fd::OwnedFd::from(pipe)), deadline));
                reap(child);
                ready.map_err(Error::io(&config.keeper_log()))?;
            }
        }
        if Instant::now() > deadline {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the keeper does not answer");
            return Err(Error::io(&config.keeper_log())(late));
        }
        std::thread::sleep(AGAIN);
        start = Start::begin(config)?;
    }
}

/// Whether `ok` comes, and not the end, or nothing.
fn says_ok<T: AsFd>(from: &T, deadline: Instant) -> io::Result<bool>
where
    for<'a> &'a T: Read,
{
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    if poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&left))? == 0 {
        return Ok(false);
    }
    let mut line = [0; 3];
    let mut from = from;
    match from.read(&mut line) {
        Ok(length) => Ok(line.get(..length) == Some(b"ok\n")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error),
    }
}

fn spawn(config: &Config) -> Result<Child> {
    let path = config.keeper_log();
    let step = || Error::io(&path);
    std::fs::create_dir_all(&config.run).map_err(Error::io(&config.run))?;
    let log = File::options().create(true).append(true).open(&path).map_err(step())?;
    let (program, args) = config.keeper.split_first().ok_or_else(|| step()(io::ErrorKind::NotFound.into()))?;
    // What the caller was given without close-on-exec (a shell's descriptors) must not live as long as the keeper.
    if let Err(error) = sys::fd::inherit_none() {
        tracing::debug!(%error, "the keeper inherits descriptors");
    }
    Command::new(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::kernel(format!("start the keeper {}", program.to_string_lossy())))
}

/// A daemon outlives its keepers: they must not stay as zombies.
fn reap(mut child: Child) {
    let waiting = std::thread::Builder::new().name("keeper".into()).spawn(move || child.wait());
    if let Err(error) = waiting {
        tracing::debug!(%error, "nobody waits for the keeper");
    }
}
