//! Verbs that relay streams.

use std::io::Write as _;

use supervisor::{AttachOptions, Attached, ExecOptions, LogOptions, LogStream, Supervisor};

use crate::interact::{End, relay};
use crate::lifecycle::has_terminal;
use crate::{args, terminal, when};

pub async fn logs(supervisor: &Supervisor, args: &args::Logs) -> anyhow::Result<u8> {
    let tail = match args.tail.as_str() {
        "all" => None,
        number => Some(number.parse().map_err(|_| anyhow::anyhow!("--tail {number:?} is no number"))?),
    };
    let options = LogOptions {
        follow: args.follow,
        tail,
        since: when::parse(&args.since)?,
        until: when::parse(&args.until)?,
        ..LogOptions::default()
    };
    let mut entries = supervisor.logs(&args.container, options)?;
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
    while let Some(entry) = entries.recv().await {
        let entry = entry?;
        let mut line = Vec::with_capacity(entry.data.len() + 40);
        if args.timestamps {
            let time = jiff::Timestamp::from_nanosecond(i128::from(entry.time))?;
            line.extend_from_slice(format!("{time:.9} ").as_bytes());
        }
        line.extend_from_slice(&entry.data);
        match entry.stream {
            LogStream::Stdout => stdout.write_all(&line)?,
            LogStream::Stderr => stderr.write_all(&line)?,
        }
        if entries.is_empty() {
            stdout.flush()?;
        }
    }
    stdout.flush()?;
    Ok(0)
}

pub async fn events(supervisor: &Supervisor, args: &args::Events) -> anyhow::Result<u8> {
    let mut entries = supervisor.events(when::parse(&args.since)?, when::parse(&args.until)?)?;
    while let Some(entry) = entries.recv().await {
        let object = serde_json::json!({
            "type": "container", "action": entry.action, "id": entry.id, "time_unix_nano": entry.time,
            "attributes": entry.attributes,
        });
        console::print_json_line(&object)?;
    }
    Ok(0)
}

pub async fn exec(supervisor: &Supervisor, args: args::Exec) -> anyhow::Result<u8> {
    let options = ExecOptions {
        args: args.command,
        env: args.env,
        cwd: args.workdir,
        user: args.user,
        terminal: args.tty,
        stdin: args.interactive,
        detach: args.detach,
        privileged: args.privileged,
        size: if args.tty { terminal::size() } else { None },
    };
    let executed = supervisor.exec(&args.container, options).await.map_err(with_code)?;
    if args.detach {
        writeln!(std::io::stdout(), "{}", executed.id)?;
        return Ok(0);
    }
    match relay(supervisor, &args.container, executed.streams, args.interactive, args.tty).await? {
        End::Exit(code) => Ok(code),
        End::Detached => Ok(0),
        End::Lost => anyhow::bail!("the connection to the process was lost"),
    }
}

/// docker's exit codes of an exec that could not be started.
fn with_code(error: supervisor::Error) -> anyhow::Error {
    use supervisor::StartFailure::{CannotExecute, NotFound, Other};
    let code = match &error {
        supervisor::Error::Runtime { failure: NotFound, .. } => console::exit::NOT_FOUND,
        supervisor::Error::Runtime { failure: CannotExecute, .. } => console::exit::CANNOT_EXECUTE,
        supervisor::Error::Runtime { failure: Other, .. } => console::exit::ENGINE,
        _ => console::exit::FAILURE,
    };
    anyhow::Error::new(error).context(console::Exit(code))
}

pub async fn attach(supervisor: &Supervisor, args: &args::Attach) -> anyhow::Result<u8> {
    let container = supervisor.get(&args.container)?;
    let tty = has_terminal(&container.oci_spec);
    let stdin = !args.no_stdin && container.definition.is_some_and(|definition| definition.open_stdin);
    let size = if tty { terminal::size() } else { None };
    let wanted = AttachOptions { stdin, stdout: true, stderr: true, logs: args.logs, size };
    let Attached::Now(streams) = supervisor.attach(&container.id, wanted).await? else {
        anyhow::bail!("container {} is not running", args.container);
    };
    match relay(supervisor, &container.id, streams, stdin, tty).await? {
        End::Exit(code) => Ok(code),
        End::Detached => Ok(0),
        End::Lost => anyhow::bail!("the connection to the container was lost; its log goes on"),
    }
}
