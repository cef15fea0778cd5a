//! Signal names and numbers.

use crate::{Error, Result};

/// Names of the standard signals of Linux on all architectures we build for, by number.
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "PWR", "SYS",
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `15`, `TERM`, `SIGTERM`, `sigterm`, `RTMIN+3`, `SIGRTMAX-1`. Empty means `SIGTERM`.
///
/// # Errors
/// [`Error::Argument`] naming what was given.
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::Argument(format!("unknown signal {text:?}"));
    if text.is_empty() {
        return Ok(libc::SIGTERM);
    }
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest).map(|o| RTMIN + o)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest).map(|o| RTMAX + o)
    } else {
        let alias = match name {
            "POLL" => "IO",
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            other => other,
        };
        return NAMES.iter().skip(1).position(|n| *n == alias).map(|i| i as i32 + 1).ok_or_else(unknown);
    };
    number.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(unknown)
}

/// What it does to a program, in strsignal(3)'s words, lower case.
pub(crate) fn describe(signal: i32) -> String {
    let words = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("", 15),
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+2", 36),
            ("RTMAX-1", 63),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["FOO", "-1", "65", "RTMAX+1", "SIG", "RTMIN+99"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
