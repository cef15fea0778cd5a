//! What clients ask for, and what comes of it.

use std::path::Path;

use oci::shim::{Exec, Exit, Failure, Kind, Reply, Request, Size};
use sys::process::Ended;

use crate::client::{Client, Id, Role};
use crate::console::ConsoleSocket;
use crate::error::{Error, chain};
use crate::event_loop::{Job, Phase, Shim, Then};
use crate::launch::read_pid;
use crate::process::{INIT, Io, Process};
use crate::runtime_cli::{self, Stdio3};

impl Shim {
    /// One frame of a client.
    pub(crate) fn handle(&mut self, id: Id, index: usize, kind: Kind, payload: &[u8]) {
        match (kind, self.clients[index].role) {
            (Kind::Request, _) => match serde_json::from_slice(payload) {
                Ok(request) => self.request(id, request),
                Err(error) => self.refuse(Some(id), Failure::Internal, error.to_string()),
            },
            (Kind::Stdin, Role::Stdio { process, stdin: true, .. }) => {
                if let Some(process) = self.process_mut(process) {
                    process.io.queue_stdin(payload);
                }
            }
            (Kind::StdinEof, Role::Stdio { process, stdin: true, .. }) => {
                if let Some(process) = self.process_mut(process) {
                    process.io.end_stdin();
                }
            }
            (Kind::Resize, Role::Stdio { process, .. }) => {
                if let (Some(process), Ok(size)) = (self.process(process), serde_json::from_slice(payload)) {
                    let _ = process.io.resize(size);
                }
            }
            _ => self.clients[index].gone = true,
        }
    }

    fn request(&mut self, id: Id, request: Request) {
        match request {
            Request::Launch(_) => self.refuse(Some(id), Failure::Internal, "already launched".into()),
            Request::Start => self.start(id),
            Request::Attach(attach) => {
                let output = [attach.stdout, attach.stderr];
                self.become_role(id, Role::Stdio { process: INIT, stdin: attach.stdin, output });
            }
            Request::Wait => self.become_role(id, Role::Wait),
            Request::Exec(exec) => self.exec(id, exec),
            Request::Signal { number } => self.signal(id, number),
            Request::Pause => self.call_for(id, "pause"),
            Request::Resume => self.call_for(id, "resume"),
            Request::Resize { exec, size } => self.resize(id, exec.as_deref(), size),
        }
    }

    fn become_role(&mut self, id: Id, role: Role) {
        if self.phase == Phase::Ended {
            self.refuse(Some(id), Failure::NotFound, "the container has ended".into());
        } else if let Some(client) = self.client_mut(Some(id)) {
            client.role = role;
            client.send_json(Kind::Reply, &Reply::Ok);
        }
    }

    fn start(&mut self, id: Id) {
        if self.phase != Phase::Created {
            return self.refuse(Some(id), Failure::Internal, "already started".into());
        }
        match runtime_cli::call(&self.launch, "start", &[], Stdio3::null()) {
            Ok(call) => {
                self.phase = Phase::Starting;
                self.jobs.push(Job { call, client: Some(id), then: Then::Started });
            }
            Err(error) => {
                self.refuse(Some(id), error.failure(), chain(&error));
                self.abort();
            }
        }
    }

    fn signal(&mut self, id: Id, number: i32) {
        let init = &self.processes[0];
        if init.ended.is_some() {
            return self.refuse(Some(id), Failure::NotFound, "the container has ended".into());
        }
        match sys::process::kill(init.pid, number) {
            Ok(()) => self.answer(Some(id), &Reply::Ok),
            Err(error) => self.refuse(Some(id), Failure::Internal, error.to_string()),
        }
    }

    fn call_for(&mut self, id: Id, verb: &'static str) {
        match runtime_cli::call(&self.launch, verb, &[], Stdio3::null()) {
            Ok(call) => self.jobs.push(Job { call, client: Some(id), then: Then::Answered }),
            Err(error) => self.refuse(Some(id), error.failure(), chain(&error)),
        }
    }

    fn resize(&mut self, id: Id, exec: Option<&str>, size: Size) {
        let process = self.processes.iter().find(|process| process.id == exec.unwrap_or_default());
        let Some(process) = process else {
            return self.refuse(Some(id), Failure::NotFound, format!("no exec {}", exec.unwrap_or_default()));
        };
        match process.io.resize(size) {
            Ok(()) => self.answer(Some(id), &Reply::Ok),
            Err(error) => self.refuse(Some(id), Failure::Internal, error.to_string()),
        }
    }

    fn exec(&mut self, id: Id, exec: Box<Exec>) {
        if self.phase != Phase::Running {
            return self.refuse(Some(id), Failure::NotFound, "the container is not running".into());
        }
        match self.call_exec(&exec) {
            Ok((call, then)) => {
                if let Some(client) = self.client_mut(Some(id)) {
                    client.role = Role::ExecPending;
                }
                let (io, console, pid_file) = then;
                self.jobs.push(Job { call, client: Some(id), then: Then::Exec { exec, io, console, pid_file } });
            }
            Err(error) => self.refuse(Some(id), error.failure(), chain(&error)),
        }
    }

    #[allow(clippy::type_complexity)]
    fn call_exec(
        &self,
        exec: &Exec,
    ) -> Result<(runtime_cli::Call, (Io, Option<ConsoleSocket>, std::path::PathBuf)), Error> {
        let directory = Path::new(&self.launch.run_dir);
        let file = |suffix: &str| directory.join(format!("exec-{}.{suffix}", exec.id));
        let (process_file, pid_file) = (file("json"), file("pid"));
        let bytes = serde_json::to_vec(&exec.process).map_err(|error| Error::Config(error.to_string()))?;
        std::fs::write(&process_file, bytes).map_err(Error::file("write", &process_file))?;
        let (process_arg, pid_arg) = (process_file.to_string_lossy(), pid_file.to_string_lossy());
        let mut args = vec!["--process", &*process_arg, "--detach", "--pid-file", &*pid_arg];
        if exec.process.get("terminal").and_then(serde_json::Value::as_bool) == Some(true) {
            let console = ConsoleSocket::listen(&self.run_dir, directory, &format!("exec-{}.sock", exec.id))?;
            let path = console.path.clone();
            args.extend(["--console-socket", &path]);
            let call = runtime_cli::call(&self.launch, "exec", &args, Stdio3::null())?;
            return Ok((call, (Io::default(), Some(console), pid_file)));
        }
        let (io, stdio) = Io::pipes(exec.stdin, self.facts.root)?;
        let call = runtime_cli::call(&self.launch, "exec", &args, stdio)?;
        Ok((call, (io, None, pid_file)))
    }

    /// A call of the runtime has ended.
    pub(crate) fn job_done(&mut self, job: Job, ended: Ended) {
        let Job { call, client, then } = job;
        if call.verb == "delete" && !ended.success() {
            eprintln!("pier-shim: runtime delete ended with {ended:?}");
        }
        let result = call.result(ended);
        match then {
            Then::Started => self.started(client, result),
            Then::Deleted => self.ending.deleted = true,
            Then::Answered => match result {
                Ok(()) => self.answer(client, &Reply::Ok),
                Err(error) => self.refuse(client, error.failure(), chain(&error)),
            },
            Then::Exec { exec, io, console, pid_file } => {
                let made = result.and_then(|()| self.exec_started(client, &exec, io, console, &pid_file));
                for suffix in ["json", "pid"] {
                    let _ = std::fs::remove_file(pid_file.with_extension(suffix));
                }
                if let Err(error) = made {
                    self.refuse(client, error.failure(), chain(&error));
                }
            }
        }
        if !self.jobs.iter().any(|job| matches!(job.then, Then::Exec { .. })) {
            self.strangers.clear();
        }
    }

    fn started(&mut self, client: Option<Id>, result: Result<(), Error>) {
        match result {
            Ok(()) => {
                self.phase = Phase::Running;
                self.record.started_at = crate::json_log::now();
                self.publish_record();
                self.journal("start", &[]);
                let pid = self.record.pid;
                self.answer(client, &Reply::Started { pid });
                if self.processes[0].ended.is_some() {
                    self.init_ended();
                }
            }
            Err(error) => {
                self.refuse(client, error.failure(), chain(&error));
                self.abort();
            }
        }
    }

    fn exec_started(
        &mut self,
        client: Option<Id>,
        exec: &Exec,
        io: Io,
        console: Option<ConsoleSocket>,
        pid_file: &Path,
    ) -> Result<(), Error> {
        let pid = read_pid(pid_file)?;
        let io = match console {
            Some(console) => Io::terminal(console.receive()?, exec.size)?,
            None => io,
        };
        let stranger = self.strangers.iter().position(|(stranger, _)| *stranger == pid);
        let ended = stranger.map(|at| self.strangers.swap_remove(at).1);
        let key = self.next_key;
        self.next_key += 1;
        self.processes.push(Process { key, id: exec.id.clone(), pid, io, ended });
        self.journal("exec_start", &[("execID", exec.id.clone())]);
        if let Some(client) = self.client_mut(client) {
            client.send_json(Kind::Reply, &Reply::Started { pid });
            if exec.detach {
                client.close();
            } else {
                client.role = Role::Stdio { process: key, stdin: exec.stdin, output: [true, true] };
            }
        }
        Ok(())
    }

    /// Ends execs that are dead: their output is read to the end first.
    pub(crate) fn finish_execs(&mut self) {
        while let Some(index) = self.processes.iter().position(|p| p.key != INIT && p.ended.is_some()) {
            self.drain_output(index);
            let process = self.processes.remove(index);
            let exit = exit_of(process.ended.unwrap_or(Ended::Code(255)));
            for client in &mut self.clients {
                if matches!(client.role, Role::Stdio { process: key, .. } if key == process.key) {
                    client.send_json(Kind::Exit, &exit);
                    client.close();
                }
            }
            self.journal("exec_die", &[("execID", process.id.clone()), ("exitCode", exit.code.to_string())]);
        }
    }

    /// A connection is gone: what it held is let go.
    pub(crate) fn client_left(&mut self, client: &Client) {
        match client.role {
            Role::Control if self.phase == Phase::Created => self.abort(),
            Role::Stdio { process: INIT, stdin: true, .. } if self.launch.stdin_once => {
                self.processes[0].io.end_stdin();
            }
            Role::Stdio { process, stdin: true, .. } if process != INIT => {
                if let Some(process) = self.process_mut(process) {
                    process.io.end_stdin();
                }
            }
            _ => {}
        }
    }

    pub(crate) fn answer(&mut self, client: Option<Id>, reply: &Reply) {
        if let Some(client) = self.client_mut(client) {
            client.send_json(Kind::Reply, reply);
        }
    }

    fn refuse(&mut self, client: Option<Id>, failure: Failure, message: String) {
        self.answer(client, &Reply::Error { failure, message });
    }
}

pub(crate) fn exit_of(ended: Ended) -> Exit {
    let signal = if let Ended::Signal(signal) = ended { signal } else { 0 };
    Exit { code: ended.shell_code(), signal, oom_killed: false }
}
