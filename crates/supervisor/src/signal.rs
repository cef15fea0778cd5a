//! Signal names and numbers (signal(7), x86 and arm numbering).

use crate::error::Error;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// First real-time signal, as C libraries count.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// SIGTERM.
pub(crate) const TERM: i32 = 15;
/// SIGKILL.
pub(crate) const KILL: i32 = 9;

/// "KILL", "SIGKILL", "9", "RTMIN+3"; case does not matter. Empty: `default`.
pub(crate) fn parse(text: &str, default: i32) -> Result<i32, Error> {
    if text.is_empty() {
        return Ok(default);
    }
    let unknown = || Error::invalid("signal", format!("{text:?} is no signal"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).map_err(|_| unknown());
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok() };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        rest.is_empty().then_some(RTMIN).or_else(|| rest.starts_with('+').then(|| offset(rest))?.map(|n| RTMIN + n))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        rest.is_empty().then_some(RTMAX).or_else(|| rest.starts_with('-').then(|| offset(rest))?.map(|n| RTMAX - n))
    } else {
        None
    };
    number.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("", 15), ("9", 9), ("KILL", 9), ("sigusr2", 12), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("rtmax-1", 63)]
        {
            assert_eq!(parse(text, TERM).unwrap(), number, "{text}");
        }
        for text in ["0", "65", "-1", "FOO", "RTMIN+99", "RTMIN3", "RTMAX+1", "SIG"] {
            assert!(parse(text, TERM).is_err(), "{text}");
        }
    }
}
