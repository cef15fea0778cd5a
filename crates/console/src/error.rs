//! How a failure is told: `Error:`, `Caused by:`, `Hint:` for people, one JSON object for programs, and an exit code.
use crate::exit;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// How errors are printed on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ErrorFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object: error, causes, hint, reason, exit_code.
    Json,
}

/// Put into an anyhow chain (`.context(hint("..."))`): what to do next. It is printed apart, never as a cause.
#[derive(Clone, Debug)]
pub struct Hint(pub String);

/// Put into an anyhow chain (`.context(Exit(125))`): the exit code this failure has.
#[derive(Clone, Copy, Debug)]
pub struct Exit(pub u8);

/// A [`Hint`].
pub fn hint(text: impl Into<String>) -> Hint {
    Hint(text.into())
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

/// The exit code of a failure: an [`Exit`] in its chain, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Exit>().map_or(exit::FAILURE, |e| e.0)
}

/// Ends a program: prints a failure, and turns the result into an exit code. `explain` finds hint and reason of errors
/// that came over the wire (`rpc::explain`). A broken pipe on stdout is success, as for any filter.
pub fn finish(
    program: &str,
    format: ErrorFormat,
    result: anyhow::Result<u8>,
    explain: impl Fn(&anyhow::Error) -> (Option<String>, Option<String>),
) -> ExitCode {
    let error = match result {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    let broken = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken) && nobody_reads(&std::io::stdout()) {
        return ExitCode::SUCCESS;
    }
    let code = exit_code(&error);
    let (wire_hint, reason) = explain(&error);
    let hint = error.downcast_ref::<Hint>().map(|h| h.0.clone()).or(wire_hint);
    let texts = chain(&error);
    let text = match format {
        ErrorFormat::Text => as_text(&texts, hint.as_deref()),
        ErrorFormat::Json => as_json(program, &texts, hint, reason, code),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// Whether what is written here has no reader any more (poll(2): `POLLERR` at a pipe whose read end is closed). A broken pipe
/// alone does not tell: it may be a connection to a registry or a daemon.
fn nobody_reads(output: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(output, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// The messages of the chain, outermost first, without hints, exit codes and repetitions.
fn chain(error: &anyhow::Error) -> Vec<String> {
    let skip =
        [error.downcast_ref::<Hint>().map(ToString::to_string), error.downcast_ref::<Exit>().map(|e| e.to_string())];
    let mut out: Vec<String> = Vec::new();
    for text in error.chain().map(ToString::to_string) {
        if !skip.iter().flatten().any(|s| *s == text) && out.last() != Some(&text) {
            out.push(text);
        }
    }
    out
}

fn as_text(texts: &[String], hint: Option<&str>) -> String {
    let mut out = String::new();
    for (i, text) in texts.iter().enumerate() {
        out.push_str(if i == 0 { "Error: " } else { "Caused by: " });
        out.push_str(&harmless(text));
        out.push('\n');
    }
    if let Some(hint) = hint {
        out.push_str(&format!("Hint: {hint}\n"));
    }
    out
}

/// Archives and registries have a say in messages; a terminal is not to obey them.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn as_json(program: &str, texts: &[String], hint: Option<String>, reason: Option<String>, code: u8) -> String {
    let object = serde_json::json!({
        "program": program,
        "error": texts.first(),
        "causes": texts.get(1..).unwrap_or_default(),
        "hint": hint,
        "reason": reason,
        "exit_code": code,
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_broken_connection_is_no_reader_who_has_left() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!nobody_reads(&writer));
        drop(reader);
        assert!(nobody_reads(&writer));
        assert!(!nobody_reads(&std::fs::File::open("/dev/null").unwrap()));
        // Standard output of a test has a reader.
        let broken = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("push");
        let code = finish("x", ErrorFormat::Text, Err(broken), |_| (None, None));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)));
    }

    #[test]
    fn a_message_commands_no_terminal() {
        let text = as_text(&["a \u{1b}[2Jb\r\n\tc\u{9b}d é".to_owned()], None);
        assert_eq!(text, "Error: a \\u{1b}[2Jb\\r\n\tc\\u{9b}d é\n");
    }

    #[test]
    fn hints_and_codes_are_not_causes() {
        let error = anyhow::anyhow!("state file missing")
            .context("no such network \"blue\"")
            .context(hint("see `pier network ls`"))
            .context(Exit(125));
        assert_eq!(exit_code(&error), 125);
        let text = as_text(&chain(&error), error.downcast_ref::<Hint>().map(|h| h.0.as_str()));
        assert_eq!(
            text,
            "Error: no such network \"blue\"\nCaused by: state file missing\nHint: see `pier network ls`\n"
        );
    }
}
