//! Verbs that change containers.

use std::future::Future;
use std::io::Write as _;

use console::{Exit, Globals, exit};
use supervisor::{
    AttachOptions, Attached, Condition, Error, RestartMode, StartFailure, StartOptions, StopOptions, Supervisor,
    UpdateOptions,
};

use crate::args;
use crate::{create as plan, interact, terminal};

/// Does all, tells every failure, and ends with 1 when there was one.
pub fn each<T>(ids: &[String], act: impl Fn(&str) -> Result<T, Error>) -> anyhow::Result<u8> {
    let mut failures = Vec::new();
    for id in ids {
        match act(id) {
            Ok(_) => writeln!(std::io::stdout(), "{id}")?,
            Err(error) => failures.push(anyhow::Error::new(error)),
        }
    }
    let Some(last) = failures.pop() else { return Ok(0) };
    failures.iter().for_each(|failure| eprintln!("Error: {failure:#}"));
    Err(last)
}

pub fn create(supervisor: &Supervisor, args: args::Create) -> anyhow::Result<u8> {
    let (definition, spec) = plan::plan(&args, true)?;
    let container = supervisor.create(definition, &spec, &[])?;
    writeln!(std::io::stdout(), "{}", container.id)?;
    Ok(0)
}

/// Without a daemon nobody acts on these; they are recorded for the next one.
fn warn_without_daemon(globals: &Globals, args: &args::Run) {
    let policy = args.create.restart.mode != RestartMode::No;
    let remove = args.create.rm && args.detach;
    if (policy || remove)
        && std::os::unix::net::UnixStream::connect(rpc::socket_path(&globals.run, "supervisor")).is_err()
    {
        let what = if policy { "the restart policy" } else { "--rm" };
        eprintln!("Warning: no `pier-supervisor serve` runs on this root: {what} is acted on once one does");
    }
}

pub async fn run(supervisor: &Supervisor, globals: &Globals, args: args::Run) -> anyhow::Result<u8> {
    let engine = |error: anyhow::Error| error.context(Exit(exit::ENGINE));
    let (definition, spec) = plan::plan(&args.create, args.detach).map_err(engine)?;
    warn_without_daemon(globals, &args);
    let container = supervisor.create(definition, &spec, &[]).map_err(|error| engine(error.into()))?;
    let id = &container.id;
    let result = if args.detach {
        start_blocking(supervisor, id, start_options(args.create.tty)).await.map(|_| 0)
    } else {
        let interactive = args.create.interactive;
        start_attached(supervisor, id, interactive, args.create.tty).await
    };
    if args.create.rm && (!args.detach || result.is_err()) && args.create.restart.mode == RestartMode::No {
        remove_quietly(supervisor, id);
    }
    let code = result?;
    if args.detach {
        writeln!(std::io::stdout(), "{id}")?;
    }
    Ok(code)
}

/// A daemon may have been quicker.
fn remove_quietly(supervisor: &Supervisor, id: &str) {
    match supervisor.remove(id, true) {
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => eprintln!("Warning: {error}"),
    }
}

fn start_options(tty: bool) -> StartOptions {
    StartOptions { size: if tty { terminal::size() } else { None }, ..StartOptions::default() }
}

/// Starts; the error of a failed start carries docker's exit code.
async fn start_blocking(supervisor: &Supervisor, id: &str, options: StartOptions) -> anyhow::Result<i32> {
    let supervisor = supervisor.clone();
    let id = id.to_owned();
    let result = tokio::task::spawn_blocking(move || supervisor.start(&id, &options)).await?;
    result.map_err(|error| {
        let code = match &error {
            Error::Start { failure: StartFailure::NotFound, .. } => exit::NOT_FOUND,
            Error::Start { failure: StartFailure::CannotExecute, .. } => exit::CANNOT_EXECUTE,
            _ => exit::ENGINE,
        };
        anyhow::Error::new(error).context(Exit(code))
    })
}

/// Attaches, starts, and relays until the end.
async fn start_attached(supervisor: &Supervisor, id: &str, stdin: bool, tty: bool) -> anyhow::Result<u8> {
    let wanted = AttachOptions { stdin, stdout: true, stderr: true, ..AttachOptions::default() };
    let attached = supervisor.attach(id, wanted).await?;
    start_blocking(supervisor, id, start_options(tty)).await?;
    let streams = match attached {
        Attached::Now(streams) => Some(streams),
        Attached::Waiting(pending) => pending.started().await?,
    };
    let Some(streams) = streams else { return ended(supervisor.wait(id, Condition::NotRunning)).await };
    match interact::relay(supervisor, id, streams, stdin, tty).await? {
        interact::End::Exit(code) => Ok(code),
        interact::End::Detached => Ok(0),
        interact::End::Lost => ended(supervisor.wait(id, Condition::NotRunning)).await,
    }
}

async fn ended(wait: impl Future<Output = Result<supervisor::Observed, Error>>) -> anyhow::Result<u8> {
    Ok(exit_code(wait.await?.exit_code))
}

/// As a shell sees it.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

pub async fn start(supervisor: &Supervisor, args: args::Start) -> anyhow::Result<u8> {
    let ids = &args.containers.ids;
    if args.attach || args.interactive {
        anyhow::ensure!(ids.len() == 1, "only one container can be attached");
        let container = supervisor.get(&ids[0])?;
        let tty = has_terminal(&container.oci_spec);
        return start_attached(supervisor, &container.id, args.interactive, tty).await;
    }
    let supervisor = supervisor.clone();
    let ids = ids.clone();
    tokio::task::spawn_blocking(move || each(&ids, |id| supervisor.start(id, &StartOptions::default()))).await?
}

pub fn has_terminal(spec: &[u8]) -> bool {
    let spec: serde_json::Value = serde_json::from_slice(spec).unwrap_or_default();
    spec.pointer("/process/terminal").and_then(serde_json::Value::as_bool).unwrap_or(false)
}

fn stop_options(args: &args::Stop) -> StopOptions {
    StopOptions { signal: args.signal.clone(), timeout_seconds: args.time }
}

pub fn stop(supervisor: &Supervisor, args: &args::Stop) -> anyhow::Result<u8> {
    each(&args.containers.ids, |id| supervisor.stop(id, &stop_options(args)))
}

pub fn restart(supervisor: &Supervisor, args: &args::Stop) -> anyhow::Result<u8> {
    each(&args.containers.ids, |id| {
        supervisor.stop(id, &stop_options(args))?;
        supervisor.start(id, &StartOptions::default())
    })
}

pub fn remove(supervisor: &Supervisor, args: &args::Remove) -> anyhow::Result<u8> {
    each(&args.containers.ids, |id| match supervisor.remove(id, args.force) {
        Err(Error::NotFound(_)) if args.force => Ok(()),
        result => result.map(|_| ()),
    })
}

pub fn rename(supervisor: &Supervisor, args: args::Rename) -> anyhow::Result<u8> {
    supervisor.update(&args.container, UpdateOptions { name: args.name, ..UpdateOptions::default() })?;
    Ok(0)
}

pub async fn wait(supervisor: &Supervisor, args: &args::Wait) -> anyhow::Result<u8> {
    let condition = match args.condition.as_str() {
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        _ => Condition::NotRunning,
    };
    for id in &args.containers.ids {
        let seen = supervisor.wait(id, condition).await?;
        writeln!(std::io::stdout(), "{}", seen.exit_code)?;
    }
    Ok(0)
}
