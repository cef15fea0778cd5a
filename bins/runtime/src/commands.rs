//! Each command: arguments in, the library's function, output.

use std::path::PathBuf;
use std::process::Command;

use runtime::cgroup::{Layout, Manager};
use runtime::create::{self, Options, Run};
use runtime::exec::{self, Changes, What};
use runtime::state::Store;
use runtime::{Error, checkpoint, delete, features, kill, notify_socket, pause, ps, restore, signal, spec};
use serde_json::json;

use crate::args::{Parsed, Values};
use crate::limits;
use crate::log::Log;
use crate::migrate;
use crate::output;

/// A failure and the exit code it means.
pub struct Failure {
    pub error: Error,
    pub code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // As runc's init, whose exit code is passed on.
        let code = if matches!(error, Error::NotExecuted(_)) { 255 } else { 1 };
        Self { error, code }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Error::Argument(message).into()
    }
}

type Outcome = Result<u8, Failure>;

/// Runs the command of a line.
pub fn run(parsed: &Parsed, store: &Store, log: &Log) -> Outcome {
    let flags = &parsed.flags;
    let verb = parsed.verb.map_or("", |v| v.name);
    let warn = &mut |m: &str| log.warn(m);
    match verb {
        "create" => {
            let options = setup(flags, &parsed.globals)?;
            create::create(store, id(parsed)?, &options, warn)?;
        }
        "run" => {
            let how =
                Run { detach: flags.on("detach"), keep: flags.on("keep"), no_subreaper: flags.on("no-subreaper") };
            return Ok(create::run(store, id(parsed)?, &setup(flags, &parsed.globals)?, how, warn)?);
        }
        "checkpoint" => {
            let options = migrate::checkpoint(flags, &parsed.globals)?;
            checkpoint::checkpoint(store, id(parsed)?, &options)?.iter().for_each(|w| warn(w));
        }
        "restore" => {
            let options = migrate::restore(flags, &parsed.globals, setup(flags, &parsed.globals)?)?;
            return Ok(restore::restore(store, id(parsed)?, &options, warn)?);
        }
        "start" => {
            for id in ids(parsed)? {
                notify_socket::start(store, id)?;
            }
        }
        "exec" => return exec_in(parsed, store, log),
        "kill" => kill_one(parsed, store)?,
        "delete" => {
            for id in ids(parsed)? {
                delete::delete(store, id, flags.on("force"))?.iter().for_each(|w| warn(w));
            }
        }
        "state" => output::print_json(&output::state(&store.load(id(parsed)?)?))?,
        "list" => list(flags, store, log)?,
        "ps" => processes(parsed, store)?,
        "pause" => pause::pause(store, id(parsed)?)?,
        "resume" => pause::resume(store, id(parsed)?)?,
        "update" => limits::update(parsed, store, id(parsed)?, log)?,
        "events" => limits::events(flags, store, id(parsed)?)?,
        "spec" => write_spec(flags)?,
        "features" => output::print_json(&features::document())?,
        other => return Err(format!("no such command: {other:?}").into()),
    }
    Ok(0)
}

fn ids(parsed: &Parsed) -> Result<&[String], String> {
    if parsed.operands.is_empty() {
        return Err(format!("{}: needs a container id", parsed.verb.map_or("", |v| v.name)));
    }
    Ok(&parsed.operands)
}

fn id(parsed: &Parsed) -> Result<&str, String> {
    match ids(parsed)? {
        [one] => Ok(one),
        more => Err(format!("{}: one container id expected, not {}", parsed.verb.map_or("", |v| v.name), more.len())),
    }
}

fn setup(flags: &Values, globals: &Values) -> Result<Options, String> {
    let bundle = match flags.path("bundle") {
        Some(dir) => dir,
        None => std::env::current_dir().map_err(|e| format!("current directory: {e}"))?,
    };
    Ok(Options {
        bundle,
        console_socket: flags.path("console-socket"),
        pidfd_socket: flags.path("pidfd-socket"),
        pid_file: flags.path("pid-file"),
        no_pivot: flags.on("no-pivot"),
        no_new_keyring: flags.on("no-new-keyring"),
        preserve_fds: flags.number("preserve-fds")?,
        cgroup_manager: manager(globals)?,
    })
}

fn manager(globals: &Values) -> Result<Manager, String> {
    match globals.last("cgroup-manager") {
        _ if globals.on("systemd-cgroup") => Ok(Manager::Systemd),
        None | Some("cgroupfs") => Ok(Manager::Cgroupfs),
        Some("systemd") => Ok(Manager::Systemd),
        Some("disabled") => Ok(Manager::Disabled),
        Some(other) => Err(format!("unknown cgroup manager {other:?}: cgroupfs, systemd or disabled")),
    }
}

fn exec_in(parsed: &Parsed, store: &Store, log: &Log) -> Outcome {
    let flags = &parsed.flags;
    let (id, args) = ids(parsed)?.split_first().ok_or_else(|| "exec: needs a container id".to_owned())?;
    let what = match flags.path("process") {
        Some(file) => What::File(file),
        None if args.is_empty() => return Err("exec: needs a command or --process".to_owned().into()),
        None => What::Changes(Box::new(changes(flags, args)?)),
    };
    let options = exec::Options {
        detach: flags.on("detach"),
        pid_file: flags.path("pid-file"),
        console_socket: flags.path("console-socket"),
        pidfd_socket: flags.path("pidfd-socket"),
        preserve_fds: flags.number("preserve-fds")?,
        ignore_paused: flags.on("ignore-paused"),
        cgroup: flags.all("cgroup"),
    };
    let failed = |error| Failure { error, code: 255 };
    exec::exec(store, id, &what, &options, &mut |note, m| match note {
        exec::Note::Debug => log.debug(m),
        exec::Note::Warning => log.warn(m),
    })
    .map_err(failed)
}

fn changes(flags: &Values, args: &[String]) -> Result<Changes, Failure> {
    let gid = |text: &String| text.parse().map_err(|_| format!("--additional-gids: {text:?} is not a number"));
    Ok(Changes {
        args: args.to_vec(),
        tty: flags.on("tty"),
        user: flags.last("user").map(exec::parse_user).transpose()?,
        additional_gids: flags.all("additional-gids").iter().map(gid).collect::<Result<_, _>>()?,
        cwd: flags.path("cwd"),
        env: flags.all("env"),
        capabilities: flags.all("cap"),
        no_new_privileges: flags.on("no-new-privs"),
        apparmor: flags.last("apparmor").map(str::to_owned),
        label: flags.last("process-label").map(str::to_owned),
    })
}

fn kill_one(parsed: &Parsed, store: &Store) -> Result<(), Failure> {
    let (id, signal) = match ids(parsed)? {
        [id] => (id, ""),
        [id, signal] => (id, signal.as_str()),
        _ => return Err("kill: one id and one signal expected".to_owned().into()),
    };
    Ok(kill::kill(store, id, signal::parse(signal)?, parsed.flags.on("all"))?)
}

fn list(flags: &Values, store: &Store, log: &Log) -> Result<(), Failure> {
    let (containers, damaged) = store.list()?;
    damaged.iter().for_each(|e| log.warn(&e.line()));
    if flags.on("quiet") {
        let ids: String = containers.iter().map(|c| format!("{}\n", c.record.id)).collect();
        return Ok(output::print(&ids)?);
    }
    match flags.last("format") {
        None | Some("table") => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec()];
            rows.extend(containers.iter().map(|c| {
                let state = output::state(c);
                ["id", "pid", "status", "bundle", "created", "owner"]
                    .map(|k| state[k].as_str().map_or_else(|| state[k].to_string(), str::to_owned))
                    .to_vec()
            }));
            Ok(output::print(&output::table(&rows))?)
        }
        Some("json") => {
            let all: Vec<_> = containers.iter().map(output::state).collect();
            Ok(output::print(&format!("{}\n", json!(all)))?)
        }
        Some(other) => Err(format!("invalid format {other:?}").into()),
    }
}

fn processes(parsed: &Parsed, store: &Store) -> Result<(), Failure> {
    let (id, options) = ids(parsed)?.split_first().ok_or_else(|| "ps: needs a container id".to_owned())?;
    let pids = ps::pids(store, id)?;
    match parsed.flags.last("format") {
        Some("json") => Ok(output::print(&format!("{}\n", json!(pids)))?),
        None | Some("table") => {
            let options = if options.first().is_some_and(|o| o == "--") { &options[1..] } else { options };
            let default = ["-ef".to_owned()];
            let options = if options.is_empty() { &default[..] } else { options };
            let done = Command::new("ps").args(options).output().map_err(|e| format!("cannot run ps: {e}"))?;
            if !done.status.success() {
                return Err(format!("ps: {}", String::from_utf8_lossy(&done.stderr).trim()).into());
            }
            Ok(output::print(&output::filter_ps(&String::from_utf8_lossy(&done.stdout), &pids)?)?)
        }
        Some(other) => Err(format!("invalid format {other:?}").into()),
    }
}

fn write_spec(flags: &Values) -> Result<(), Failure> {
    let path = flags.path("bundle").unwrap_or_else(|| PathBuf::from(".")).join("config.json");
    let ids = flags.on("rootless").then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let text =
        serde_json::to_string_pretty(&spec::default(ids, Layout::detect()?.unified)).map_err(|e| e.to_string())?;
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|e| format!("file {} exists, or cannot be made: {e}. Remove it first", path.display()))?;
    Ok(std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
        .map_err(|e| format!("{}: {e}", path.display()))?)
}
