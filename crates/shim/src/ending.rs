//! The end of a container: read its output to the end, put the exit on disk, tell, delete, go.

use std::path::Path;
use std::time::{Duration, Instant};

use oci::shim::{Exit, ExitRecord, JOURNAL_LIMITS, JournalEntry, Kind};
use statedir::segments::{Limits, append_shared};

use crate::client::Role;
use crate::error::chain;
use crate::event_loop::{Job, Phase, Shim, Then};
use crate::json_log::{Stream, now};
use crate::process::INIT;
use crate::requests::exit_of;
use crate::runtime_cli::{self, Stdio3};

/// Bytes read from a dead process's streams at most: somebody else may hold and feed them for ever.
const DRAIN_LIMIT: usize = 16 << 20;
/// How long the shim stays to delete the container and to let clients read their last bytes.
const LINGER: Duration = Duration::from_secs(10);

/// What is left to do before the shim may go.
#[derive(Default)]
pub(crate) struct Ending {
    since: Option<Instant>,
    pub(crate) deleted: bool,
}

impl Ending {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + LINGER)
    }
}

impl Shim {
    /// The first process is dead.
    pub(crate) fn init_ended(&mut self) {
        match self.phase {
            // The answer of `runtime start` decides whether it ever ran.
            Phase::Starting | Phase::Ended => return,
            Phase::Created => return self.abort(),
            Phase::Running => {}
        }
        if !self.facts.own_pid_namespace
            && let Err(error) = self.cgroup.kill_all()
        {
            eprintln!("pier-shim: kill what is left: {}", chain(&error));
        }
        self.drain_output(0);
        if let Some(log) = &mut self.log {
            log.finish();
        }
        let mut exit = exit_of(self.processes[0].ended.unwrap_or(sys::process::Ended::Code(255)));
        exit.oom_killed = self.cgroup.oom_kills() > 0;
        self.record_exit(&exit);
        if exit.oom_killed {
            self.journal("oom", &[]);
        }
        self.journal("die", &[("exitCode", exit.code.to_string())]);
        self.phase = Phase::Ended;
        self.tell(&exit);
        self.delete();
    }

    /// The container never began: undo it. exit.json goes on telling of the run before.
    pub(crate) fn abort(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        let exit = Exit { code: 128, ..Exit::default() };
        self.tell(&exit);
        self.delete();
    }

    fn tell(&mut self, exit: &Exit) {
        for client in &mut self.clients {
            match client.role {
                Role::Wait | Role::Stdio { process: INIT, .. } => {
                    client.send_json(Kind::Exit, exit);
                    client.close();
                }
                // Execs end with the container; their own ends are reaped in the same breath.
                _ => {}
            }
        }
    }

    fn record_exit(&self, exit: &Exit) {
        let record = ExitRecord {
            run: self.launch.run,
            exit: exit.clone(),
            started_at: self.record.started_at.clone(),
            finished_at: now(),
            error: String::new(),
        };
        let path = Path::new(&self.launch.container_dir).join("exit.json");
        if let Err(error) = statedir::write_json(&path, 1, &record) {
            eprintln!("pier-shim: exit.json: {}", chain(&error));
        }
    }

    /// Reads all streams of a dead process until nothing is left.
    pub(crate) fn drain_output(&mut self, index: usize) {
        let mut buffer = [0_u8; 4096];
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < DRAIN_LIMIT {
                let count = self.read_output(index, stream, &mut buffer);
                if count == 0 {
                    break;
                }
                total += count;
            }
        }
    }

    fn delete(&mut self) {
        self.ending.since = Some(Instant::now());
        match runtime_cli::call(&self.launch, "delete", &["--force"], Stdio3::null()) {
            Ok(call) => self.jobs.push(Job { call, client: None, then: Then::Deleted }),
            Err(error) => {
                eprintln!("pier-shim: {}", chain(&error));
                self.ending.deleted = true;
            }
        }
    }

    /// Whether nothing is left to do, or it took too long.
    pub(crate) fn is_over(&self) -> bool {
        if self.phase != Phase::Ended {
            return false;
        }
        let flushed = self.clients.iter().all(|client| !client.has_output());
        (self.ending.deleted && flushed) || self.ending.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Removes what stands for this shim. Mounts go with its namespace.
    pub(crate) fn clean_up(&self) {
        let _ = std::fs::remove_file(&self.launch.presence);
        let _ = std::fs::remove_dir_all(&self.launch.run_dir);
    }

    /// Appends an event.
    pub(crate) fn journal(&self, action: &str, more: &[(&str, String)]) {
        let mut attributes = self.launch.attributes.clone();
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let time = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let entry = JournalEntry { time, action: action.into(), id: self.launch.id.clone(), attributes };
        let (max_size, max_files) = JOURNAL_LIMITS;
        let written = serde_json::to_vec(&entry).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            append_shared(Path::new(&self.launch.journal), 0o600, Limits { max_size, max_files }, &line)
        });
        if let Err(error) = written {
            eprintln!("pier-shim: journal: {error}");
        }
    }
}
