//! Commands and what came of them.
use crate::Result;
use anyhow::{bail, ensure};
use std::process::Output;
use std::time::{Duration, Instant};

/// What a finished command left: its exit code and its output.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run.
    pub command: String,
    /// Exit code; 128+n for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Of a command that has ended.
    pub fn of(command: String, output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or(output.status.signal().map(|s| 128 + s)).unwrap_or(-1);
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Self { command, code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails unless it exited with 0.
    pub fn ok(self) -> Result<Self> {
        self.exits(0)
    }

    /// Fails unless it exited with `code`.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code != code {
            bail!("exit code {} instead of {code}\n{self}", self.code);
        }
        Ok(self)
    }

    /// Fails unless it failed.
    pub fn fails(self) -> Result<Self> {
        ensure!(self.code != 0, "succeeded unexpectedly\n{self}");
        Ok(self)
    }

    /// Fails unless stdout or stderr contains `text`.
    pub fn has(self, text: &str) -> Result {
        self.with(text).map(|_| ())
    }

    /// [`Outcome::has`] for chaining.
    pub fn with(self, text: &str) -> Result<Self> {
        ensure!(self.stdout.contains(text) || self.stderr.contains(text), "no {text:?} in\n{self}");
        Ok(self)
    }

    /// Fails when stdout or stderr contains `text`.
    pub fn without(self, text: &str) -> Result<Self> {
        ensure!(!self.stdout.contains(text) && !self.stderr.contains(text), "{text:?} in\n{self}");
        Ok(self)
    }

    /// Standard output without the white space around it.
    pub fn out(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).map_err(|e| anyhow::anyhow!("{e} in\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n[{}]\n{}\n--- stderr\n{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// Tries until it holds; fails with the last reason after `limit`.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(e) if Instant::now() > end => return Err(e.context(format!("not within {limit:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
