//! `pier-runtime`: an OCI runtime with runc's command line. See the `runtime` crate for what it does and how.

mod args;
mod commands;
mod docs;
mod limits;
mod log;
mod migrate;
mod output;
mod serve;
mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use args::{Parsed, Values};
use log::Log;
use rpc::Coded;
use runtime::state::Store;

fn main() -> ExitCode {
    let line = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let parsed = match args::parse(verbs::GLOBALS, verbs::VERBS, line) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("Error: {message}");
            return ExitCode::from(1);
        }
    };
    let globals = &parsed.globals;
    if globals.on("version") || parsed.flags.on("version") {
        return ExitCode::from(done(output::print(&version(&program()))));
    }
    if parsed.verb.is_none() || globals.on("help") || parsed.flags.on("help") {
        return ExitCode::from(done(output::print(&docs::help(parsed.verb, &program()))));
    }
    let log = match Log::new(globals.path("log"), globals.last("log-format"), globals.on("debug")) {
        Ok(log) => log,
        Err(message) => {
            eprintln!("Error: {message}");
            return ExitCode::from(1);
        }
    };
    match parsed.verb.map_or("", |v| v.name) {
        "serve" => serve::serve(&parsed, &state_root(globals), &run_dir(globals)),
        "completion" | "man" => serve::generate(&parsed),
        _ => one_shot(&parsed, &log),
    }
}

fn one_shot(parsed: &Parsed, log: &Log) -> ExitCode {
    if parsed.verb.is_some_and(|v| matches!(v.name, "create" | "run" | "exec" | "restore"))
        && let Err(e) = runtime::seal::ensure()
    {
        log.warn(&format!("cannot protect the runtime's own file: {e}"));
    }
    let store = Store::new(state_root(&parsed.globals));
    log.debug(&format!(
        "{} {:?}, state in {}",
        parsed.verb.map_or("", |v| v.name),
        parsed.operands,
        store.root().display()
    ));
    match commands::run(parsed, &store, log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let line = message(parsed, &failure.error);
            log.error(&line);
            // That one is the program's own message, as a shell's would be.
            let prefix = if matches!(failure.error, runtime::Error::NotExecuted(_)) { "" } else { "Error: " };
            eprintln!("{prefix}{line}");
            if let Some(hint) = failure.error.hint() {
                eprintln!("Hint: {hint}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The failure in one line, introduced as runc does: it is what people search for.
fn message(parsed: &Parsed, error: &runtime::Error) -> String {
    let line = error.line();
    match parsed.verb.map_or("", |v| v.name) {
        _ if matches!(error, runtime::Error::NotExecuted(_)) => line,
        verb @ ("create" | "run" | "restore") => format!("{} {verb} failed: {line}", program()),
        "exec" => format!("exec failed: {line}"),
        _ => line,
    }
}

fn done(result: Result<(), String>) -> u8 {
    u8::from(result.is_err())
}

/// The name that we were called by: where a link named `runc` leads here, its callers read that name.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| "pier-runtime".to_owned())
}

fn version(program: &str) -> String {
    let commit = option_env!("PIER_COMMIT").unwrap_or("unknown");
    format!("{program} version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), runtime::spec::VERSION)
}

/// Pier's run directory: the flag, `PIER_RUN`, `/run/pier` for root, else the user's.
fn run_dir(globals: &Values) -> PathBuf {
    if let Some(dir) =
        globals.path("run").or_else(|| std::env::var_os("PIER_RUN").filter(|d| !d.is_empty()).map(Into::into))
    {
        return absolute(dir);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/pier");
    }
    let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(PathBuf::from);
    user.unwrap_or_else(|| PathBuf::from(format!("/tmp/pier-{}", rustix::process::geteuid().as_raw()))).join("pier")
}

/// Where the state is: `--root`, else `<run>/runtime`.
fn state_root(globals: &Values) -> PathBuf {
    match globals.path("root") {
        // `--root R --run D serve` is how Pier starts its tools: there R is for data that outlives a reboot, which this has none of.
        Some(_) if globals.path("run").is_some() => run_dir(globals).join("runtime"),
        Some(dir) => absolute(dir),
        None => run_dir(globals).join("runtime"),
    }
}

fn absolute(dir: PathBuf) -> PathBuf {
    std::path::absolute(&dir).unwrap_or(dir)
}
