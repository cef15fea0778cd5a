//! The loop: one poll(2) over everything, then what is ready is done. Nothing here waits for anybody.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use oci::shim::{Launch, RunRecord};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::process::{Ended, SignalFd};

use crate::client::{Client, Id, Role};
use crate::config::Facts;
use crate::console::ConsoleSocket;
use crate::ending::Ending;
use crate::error::{Error, chain};
use crate::json_log::{JsonLog, Stream};
use crate::process::{Got, INIT, Io, Key, Process};
use crate::runtime_cli::Call;

const BUFFER: usize = 16 << 10;
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// How far the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Starting,
    Running,
    /// Its end is on disk, or it never began.
    Ended,
}

/// A call of the runtime that is running, and for whom.
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) client: Option<Id>,
    pub(crate) then: Then,
}

/// What the end of a call leads to.
pub(crate) enum Then {
    Started,
    Answered,
    Deleted,
    Exec { exec: Box<oci::shim::Exec>, io: Io, console: Option<ConsoleSocket>, pid_file: std::path::PathBuf },
}

/// A running shim.
pub(crate) struct Shim {
    pub(crate) launch: Launch,
    pub(crate) phase: Phase,
    pub(crate) record: RunRecord,
    /// The first process, then the execs.
    pub(crate) processes: Vec<Process>,
    pub(crate) next_key: Key,
    pub(crate) clients: Vec<Client>,
    next_client: Id,
    pub(crate) jobs: Vec<Job>,
    /// Dead children that no process is known for yet: an exec may end before its runtime call does.
    pub(crate) strangers: Vec<(i32, Ended)>,
    pub(crate) log: Option<JsonLog>,
    pub(crate) cgroup: sys::cgroup::Paths,
    pub(crate) facts: Facts,
    pub(crate) ending: Ending,
    pub(crate) run_dir: OwnedFd,
    signals: SignalFd,
    listener: UnixListener,
    /// Holds the lock by which others know that this shim lives.
    _presence: File,
}

#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Client(usize),
    Output(usize, Stream),
    Stdin(usize),
}

impl Shim {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        launch: Launch,
        init: Process,
        signals: SignalFd,
        listener: UnixListener,
        run_dir: OwnedFd,
        presence: File,
        log: Option<JsonLog>,
        cgroup: sys::cgroup::Paths,
        facts: Facts,
    ) -> Self {
        let record = RunRecord { run: launch.run, pid: init.pid, started_at: String::new() };
        let shim = Self {
            launch,
            phase: Phase::Created,
            record,
            processes: vec![init],
            next_key: 1,
            clients: Vec::new(),
            next_client: 1,
            jobs: Vec::new(),
            strangers: Vec::new(),
            log,
            cgroup,
            facts,
            ending: Ending::default(),
            run_dir,
            signals,
            listener,
            _presence: presence,
        };
        shim.publish_record();
        shim
    }

    pub(crate) fn init_pid(&self) -> i32 {
        self.record.pid
    }

    pub(crate) fn adopt(&mut self, client: Client) {
        self.clients.push(client);
    }

    /// Runs until the container is over and deleted.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            self.turn(&mut buffer)?;
            // In this order: a client that got its last word now must not stay until something else wakes the loop.
            self.finish_execs();
            self.drop_gone_clients();
            if self.is_over() {
                self.clean_up();
                return Ok(());
            }
        }
    }

    fn turn(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let ready = self.wait()?;
        for token in ready {
            match token {
                Token::Signals => self.take_signals()?,
                Token::Listener => self.accept(),
                Token::Client(index) => self.serve_client(index, buffer),
                Token::Output(index, stream) => {
                    self.read_output(index, stream, buffer);
                }
                Token::Stdin(index) => self.processes[index].io.write_stdin(),
            }
        }
        let now = Instant::now();
        for client in &mut self.clients {
            client.drop_if_stalled(now);
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Token>, Error> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        let mut tokens = vec![Token::Signals, Token::Listener];
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.wants_input_of(client));
            flags.set(PollFlags::OUT, client.has_output());
            fds.push(PollFd::from_borrowed_fd(client.fd(), flags));
            tokens.push(Token::Client(index));
        }
        for (index, process) in self.processes.iter().enumerate() {
            if let Some(fd) = process.io.pending_stdin() {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
                tokens.push(Token::Stdin(index));
            }
            if self.is_held_up(process.key) {
                continue;
            }
            for stream in STREAMS {
                if let Some(fd) = &process.io.output[stream as usize] {
                    fds.push(PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
                    tokens.push(Token::Output(index, stream));
                }
            }
        }
        let timeout = self.next_deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::System { step: "poll", source: errno.into() }),
        }
        Ok(fds.iter().zip(tokens).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, token)| token).collect())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stalls = self.clients.iter().filter_map(Client::stall_deadline);
        stalls.chain(self.ending.deadline()).min()
    }

    /// A client whose stdin has nowhere to go is not read: the sender feels it.
    fn wants_input_of(&self, client: &Client) -> bool {
        match client.role {
            Role::Stdio { process, stdin: true, .. } => {
                self.process(process).is_none_or(|process| process.io.wants_stdin())
            }
            _ => true,
        }
    }

    /// A full client of this process makes its output wait (the client is dropped if that takes long).
    fn is_held_up(&self, key: Key) -> bool {
        self.clients.iter().any(|client| {
            matches!(client.role, Role::Stdio { process, .. } if process == key) && client.is_full() && !client.gone
        })
    }

    pub(crate) fn process(&self, key: Key) -> Option<&Process> {
        self.processes.iter().find(|process| process.key == key)
    }

    pub(crate) fn process_mut(&mut self, key: Key) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.key == key)
    }

    pub(crate) fn client_mut(&mut self, id: Option<Id>) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| Some(client.id) == id)
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let id = self.next_client;
            self.next_client += 1;
            if let Ok(client) = Client::new(id, socket, Role::New) {
                self.clients.push(client);
            }
        }
    }

    fn serve_client(&mut self, index: usize, buffer: &mut [u8]) {
        self.clients[index].flush();
        if self.wants_input_of(&self.clients[index]) {
            self.clients[index].receive(buffer);
            let id = self.clients[index].id;
            while let Some((kind, payload)) = self.clients[index].next_frame() {
                self.handle(id, index, kind, &payload);
            }
        }
    }

    /// Reads one stream once and hands it on; the number of bytes.
    pub(crate) fn read_output(&mut self, index: usize, stream: Stream, buffer: &mut [u8]) -> usize {
        let process = &mut self.processes[index];
        let key = process.key;
        match process.io.read(stream, buffer) {
            Got::Bytes(count) => {
                if key == INIT
                    && let Some(log) = &mut self.log
                {
                    log.write(stream, &buffer[..count]);
                }
                for client in &mut self.clients {
                    client.output(key, stream, &buffer[..count]);
                }
                count
            }
            Got::Nothing => 0,
            Got::End => {
                // A hung-up terminal reports for ever; when its process is dead there is nothing to wait for.
                self.processes[index].io.output[stream as usize] = None;
                0
            }
        }
    }

    fn take_signals(&mut self) -> Result<(), Error> {
        while self.signals.next_signal().map_err(Error::system("read a signal"))?.is_some() {}
        while let Some((pid, ended)) = sys::process::reap_any().map_err(Error::system("reap"))? {
            self.reaped(pid, ended);
        }
        Ok(())
    }

    fn reaped(&mut self, pid: i32, ended: Ended) {
        if let Some(at) = self.jobs.iter().position(|job| job.call.pid == pid) {
            let job = self.jobs.swap_remove(at);
            self.job_done(job, ended);
        } else if let Some(process) = self.processes.iter_mut().find(|p| p.pid == pid && p.ended.is_none()) {
            process.ended = Some(ended);
            if process.key == INIT {
                self.init_ended();
            }
        } else if self.jobs.iter().any(|job| matches!(job.then, Then::Exec { .. })) {
            self.strangers.push((pid, ended));
        }
    }

    fn drop_gone_clients(&mut self) {
        let mut index = 0;
        while index < self.clients.len() {
            if !self.clients[index].gone {
                index += 1;
                continue;
            }
            let client = self.clients.swap_remove(index);
            self.client_left(&client);
        }
    }

    /// run.json: the pid and start time for whoever asks. It is derived, so it needs no fsync.
    pub(crate) fn publish_record(&self) {
        let directory = std::path::Path::new(&self.launch.run_dir);
        let stage = directory.join("run.json.new");
        let written = serde_json::to_vec(&self.record)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&stage, bytes))
            .and_then(|()| std::fs::rename(&stage, directory.join("run.json")));
        if let Err(error) = written {
            eprintln!("pier-shim: run.json: {}", chain(&error));
        }
    }
}
