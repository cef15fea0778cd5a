//! One file a command: its flags, its calls, what it prints.

pub mod container;
pub mod image;
pub mod inspect;
pub mod network;
pub mod system;
pub mod volume;

use std::io::{BufRead, Write};

/// Does something to each name and prints what it returns; failures are told at the end, none keeps the others back.
pub async fn each(names: &[String], act: impl AsyncFn(&str) -> anyhow::Result<String>) -> anyhow::Result<u8> {
    let mut failures = Vec::new();
    for name in names {
        match act(name).await {
            Ok(line) => writeln!(std::io::stdout(), "{line}")?,
            Err(error) => failures.push(error),
        }
    }
    told(failures)
}

/// The same for what prints nothing.
pub async fn each_quietly(names: &[String], act: impl AsyncFn(&str) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let mut failures = Vec::new();
    for name in names {
        failures.extend(act(name).await.err());
    }
    told(failures)
}

/// The last failure is the command's; those before it are told.
fn told(mut failures: Vec<anyhow::Error>) -> anyhow::Result<u8> {
    let Some(last) = failures.pop() else { return Ok(0) };
    for failure in &failures {
        eprintln!("Error: {failure:#}");
    }
    Err(last)
}

/// Asks before something is removed; `force` says yes.
pub fn confirmed(question: &str, force: bool) -> anyhow::Result<bool> {
    if force {
        return Ok(true);
    }
    eprint!("{question}\nAre you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A line on stdout; a closed pipe is an error that ends the program quietly.
pub fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// The last line of every prune.
pub fn reclaimed(bytes: i64) -> anyhow::Result<()> {
    say(format_args!("Total reclaimed space: {}", console::human_size(bytes.max(0).unsigned_abs())))
}

/// Warnings on stderr.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("WARNING: {warning}");
    }
}

/// A local file for a server on this host: absolute, or "-" as this process's open stdin or stdout (`fd` 0 or 1).
pub fn server_path(path: &str, fd: u8) -> anyhow::Result<String> {
    if path == "-" || path.is_empty() {
        return Ok(format!("/proc/{}/fd/{fd}", std::process::id()));
    }
    Ok(std::path::absolute(path)?.display().to_string())
}
