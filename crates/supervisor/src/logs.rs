//! Reading the log: all of it, a tail, a span of time, and following it across rotations to the container's end.

use std::collections::VecDeque;

use serde::Deserialize;
use statedir::segments::Follower;
use tokio::sync::mpsc;

use crate::events::{Changes, Lines};
use crate::{Error, Supervisor};

const BUFFER: usize = 64 << 10;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Also a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it came from.
    pub stream: LogStream,
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// With its newline, if it has one.
    pub data: Vec<u8>,
}

/// What to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Last lines only; `None`: all.
    pub tail: Option<u64>,
    /// Nanoseconds, 0: none.
    pub since: i64,
    /// Nanoseconds, 0: none.
    pub until: i64,
    /// Both false: both.
    pub stdout: bool,
    /// Both false: both.
    pub stderr: bool,
}

#[derive(Deserialize)]
struct JsonLine {
    log: String,
    stream: String,
    time: String,
}

impl LogOptions {
    fn wants(&self, entry: &LogEntry) -> bool {
        let all = !self.stdout && !self.stderr;
        let stream = all || if entry.stream == LogStream::Stdout { self.stdout } else { self.stderr };
        stream && entry.time >= self.since && (self.until == 0 || entry.time <= self.until)
    }
}

/// Damaged lines (of a killed shim, a full disk) are passed over.
fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: JsonLine = serde_json::from_slice(line).ok()?;
    let time: jiff::Timestamp = line.time.parse().ok()?;
    let stream = if line.stream == "stderr" { LogStream::Stderr } else { LogStream::Stdout };
    Some(LogEntry { stream, time: i64::try_from(time.as_nanosecond()).ok()?, data: line.log.into_bytes() })
}

struct Reader {
    follower: Follower,
    lines: Lines,
    buffer: Vec<u8>,
    options: LogOptions,
}

impl Reader {
    /// All that is there now.
    fn read(&mut self) -> Result<Vec<LogEntry>, std::io::Error> {
        let mut entries = Vec::new();
        let count = self.follower.read(&mut self.buffer)?;
        for line in self.lines.push(&self.buffer[..count]) {
            entries.extend(parse(&line).filter(|entry| self.options.wants(entry)));
        }
        if count > 0 && entries.is_empty() {
            // Nothing of interest in this piece, but there may be more.
            return self.read();
        }
        Ok(entries)
    }
}

impl Supervisor {
    /// Log entries in order. Without `follow` the stream ends with what is there; with it, with the container.
    pub fn logs(&self, reference: &str, options: LogOptions) -> Result<mpsc::Receiver<Result<LogEntry, Error>>, Error> {
        let id = self.store().resolve(reference)?;
        if self.store().definition(&id)?.log.driver == "none" {
            return Err(Error::invalid(format!("container {id}"), "its log driver is none"));
        }
        let path = self.store().log_path(&id);
        let dir = self.store().container(&id);
        let changes = Changes::of(&[&dir.join("log"), &dir])?;
        let follower = Follower::from_start(&path).map_err(Error::file("read", &path))?;
        let reader = Reader { follower, lines: Lines::default(), buffer: vec![0; BUFFER], options };
        let (sender, receiver) = mpsc::channel(256);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = this.pump_logs(&id, reader, &sender, &changes) => {
                    if let Err(error) = result {
                        let _ = sender.send(Err(error)).await;
                    }
                }
                () = sender.closed() => {}
            }
        });
        Ok(receiver)
    }

    async fn pump_logs(
        &self,
        id: &str,
        mut reader: Reader,
        sender: &mpsc::Sender<Result<LogEntry, Error>>,
        changes: &Changes,
    ) -> Result<(), Error> {
        let path = self.store().log_path(id);
        let tail = reader.options.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let mut kept: VecDeque<LogEntry> = VecDeque::new();
        loop {
            let entries = reader.read().map_err(Error::file("read", &path))?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                match tail {
                    Some(0) => {}
                    Some(limit) => {
                        if kept.len() == limit {
                            kept.pop_front();
                        }
                        kept.push_back(entry);
                    }
                    None => {
                        let _ = sender.send(Ok(entry)).await;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        for entry in kept {
            let _ = sender.send(Ok(entry)).await;
        }
        if !reader.options.follow {
            return Ok(());
        }
        loop {
            // First the state, then the log: what was written before the end is read after it.
            let over = self.is_over(id);
            loop {
                let entries = reader.read().map_err(Error::file("read", &path))?;
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    let _ = sender.send(Ok(entry)).await;
                }
            }
            if over {
                return Ok(());
            }
            self.log_changed(id, changes).await?;
        }
    }

    /// Ended for good: a policy's next try goes on in the same log.
    fn is_over(&self, id: &str) -> bool {
        use crate::Status::{Paused, Restarting, Running};
        self.observe(id).map_or(true, |seen| !matches!(seen.status, Running | Paused | Restarting))
    }

    /// A write, a rotation, an exit record, or the death of a shim that could write none.
    async fn log_changed(&self, id: &str, changes: &Changes) -> Result<(), Error> {
        let shim = self.shim_fd(id).and_then(|fd| crate::watch_fd(fd, "watch a shim").ok());
        let Some(shim) = shim else {
            return changes.next().await;
        };
        tokio::select! {
            changed = changes.next() => changed,
            _ = shim.readable() => Ok(()),
        }
    }
}
