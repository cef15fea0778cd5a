//! Runs a program of a firewall: a script in, its output out.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Lines of what a program complains that are told.
const LINES: usize = 4;

/// What the program prints. `backend` is how its refusal names it.
///
/// # Errors
/// [`Error::FirewallMissing`], [`Error::Firewall`] when it refuses.
pub(super) fn run(program: &str, args: &[&str], input: &str, backend: &str) -> Result<String> {
    let step = || Error::kernel(format!("run {program}"));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::FirewallMissing { program: program.to_owned() },
            _ => step()(error),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that it gave up; what it says is on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(step())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.lines().take(LINES).collect::<Vec<_>>().join("; ");
    Err(Error::Firewall { backend: backend.to_owned(), message })
}
