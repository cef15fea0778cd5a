//! `--name=value` between an instruction's name and its arguments.

use super::diagnostic::{Problem, nearest};

type Result<T> = std::result::Result<T, Problem>;

/// Flags of one instruction, in order.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(String, String)>,
}

/// Cuts the flags off `text`: the flags and the rest.
pub(super) fn split(instruction: &str, text: &str, known: &[&str], escape: char) -> Result<(Flags, String)> {
    let mut flags = Flags::default();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let end = word_end(rest, escape);
        let word = &rest[..end];
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        let (name, value) = word[2..].split_once('=').unwrap_or((&word[2..], "true"));
        if !known.contains(&name) {
            return Err(unknown(instruction, name, known));
        }
        if !word.contains('=') && !["link", "parents"].contains(&name) {
            return Err(Problem::new(format!("the flag --{name} of {instruction} needs a value"))
                .hint(format!("write --{name}=VALUE")));
        }
        flags.given.push((name.to_owned(), unquote(value, escape)));
    }
    Ok((flags, rest.to_owned()))
}

fn unknown(instruction: &str, name: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(format!("unknown flag --{name} of {instruction}"));
    match nearest(name, known) {
        Some(near) => problem.hint(format!("did you mean --{near}?")),
        None if known.is_empty() => problem.hint(format!("{instruction} takes no flags")),
        None => problem.hint(format!("{instruction} knows --{}", known.join(", --"))),
    }
}

fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape => drop(chars.next()),
            _ => {}
        }
    }
    text.len()
}

fn unquote(text: &str, escape: char) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            // An escaped dollar is for the expansion that follows.
            _ if c == escape => match chars.next() {
                Some('$') => out.extend([escape, '$']),
                next => out.extend(next),
            },
            _ => out.push(c),
        }
    }
    out
}

impl Flags {
    /// The one value of a flag; the same flag twice is a mistake.
    pub(super) fn one(&self, name: &str) -> Result<Option<String>> {
        let mut values = self.many(name).into_iter();
        let first = values.next();
        match values.next() {
            Some(_) => Err(Problem::new(format!("the flag --{name} is given twice"))),
            None => Ok(first),
        }
    }

    /// All values of a flag.
    pub(super) fn many(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }
}

/// `300ms`, `1h30m`, `5s` in nanoseconds.
pub(super) fn duration(name: &str, text: &str) -> Result<i64> {
    let bad = || {
        Problem::new(format!("invalid duration {text:?} of --{name}"))
            .hint("write a number with a unit: 500ms, 30s, 5m")
    };
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|_| bad())?;
    let total = i64::try_from(parsed.as_nanos()).map_err(|_| bad())?;
    if total < 0 || (total != 0 && total < 1_000_000) { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cuts_flags_off() {
        let (flags, rest) =
            split("COPY", "--from=a --chown=\"x y\":z  b /c --from=d", &["from", "chown"], '\\').unwrap();
        assert_eq!(flags.one("from").unwrap().as_deref(), Some("a"));
        assert_eq!(flags.one("chown").unwrap().as_deref(), Some("x y:z"));
        assert_eq!(rest, "b /c --from=d");
    }

    #[test]
    fn names_the_nearest_flag() {
        let problem = split("COPY", "--form=a b c", &["from", "chown"], '\\').unwrap_err();
        assert_eq!(problem.message, "unknown flag --form of COPY");
        assert_eq!(problem.hint.as_deref(), Some("did you mean --from?"));
        assert!(split("RUN", "--mount x", &["mount"], '\\').is_err());
    }

    #[test]
    fn reads_durations() {
        for (text, expected) in
            [("30s", 30_000_000_000), ("1h30m", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("0s", 0)]
        {
            assert_eq!(duration("interval", text).unwrap(), expected, "{text}");
        }
        for text in ["", "5", "x", "5y", "1us"] {
            assert!(duration("interval", text).is_err(), "{text}");
        }
    }
}
