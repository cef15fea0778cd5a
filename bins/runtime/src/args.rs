//! The command line: runc's, parsed by hand because every container operation starts this program anew.
//!
//! Flags may stand before and after the positionals (`create ID --bundle B`), as `--x v` or `--x=v`, with one dash or two.
//! `exec`, `kill` and `ps` stop at the container id: what follows belongs to the process, or is a signal.

use std::collections::HashMap;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    /// Name of its value; `None` for a switch.
    pub value: Option<&'static str>,
    pub help: &'static str,
}

/// One command.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    /// Positionals, for the usage line.
    pub operands: &'static str,
    pub help: &'static str,
    pub flags: &'static [Flag],
    /// Everything after the first positional is positional.
    pub stops_at_id: bool,
    pub hidden: bool,
}

/// Given flags: the values in order.
#[derive(Debug, Default, Clone)]
pub struct Values(HashMap<&'static str, Vec<String>>);

impl Values {
    /// A switch.
    pub fn on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|v| v != "false")
    }

    /// The last value given.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str)
    }

    /// The last value as a path.
    pub fn path(&self, name: &str) -> Option<std::path::PathBuf> {
        self.last(name).filter(|v| !v.is_empty()).map(Into::into)
    }

    /// All values.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// A number; absent is 0.
    pub fn number(&self, name: &str) -> Result<u32, String> {
        let Some(text) = self.last(name) else { return Ok(0) };
        text.parse().map_err(|_| format!("--{name}: {text:?} is not a number"))
    }
}

/// A parsed command line.
#[derive(Debug)]
pub struct Parsed {
    pub globals: Values,
    pub verb: Option<&'static Verb>,
    pub flags: Values,
    pub operands: Vec<String>,
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// A message naming the argument.
pub fn parse(
    globals: &'static [Flag],
    verbs: &'static [Verb],
    args: impl IntoIterator<Item = String>,
) -> Result<Parsed, String> {
    let mut args = args.into_iter();
    let mut parsed = Parsed { globals: Values::default(), verb: None, flags: Values::default(), operands: vec![] };
    while let Some(arg) = args.next() {
        let stopped = parsed.verb.is_some_and(|v| v.stops_at_id) && !parsed.operands.is_empty();
        if stopped || !is_flag(&arg) {
            match parsed.verb {
                None => parsed.verb = Some(find(verbs, &arg)?),
                Some(_) => parsed.operands.push(arg),
            }
            continue;
        }
        if arg == "--" {
            parsed.operands.extend(args.by_ref());
            break;
        }
        let known = parsed.verb.map_or(globals, |v| v.flags);
        let values = if parsed.verb.is_some() { &mut parsed.flags } else { &mut parsed.globals };
        take(known, values, &arg, &mut args)?;
    }
    Ok(parsed)
}

fn is_flag(arg: &str) -> bool {
    arg.len() > 1 && arg.starts_with('-')
}

fn find(verbs: &'static [Verb], name: &str) -> Result<&'static Verb, String> {
    verbs
        .iter()
        .find(|v| v.name == name)
        .ok_or_else(|| format!("No help topic for '{name}': no such command; see --help"))
}

fn take(
    known: &'static [Flag],
    values: &mut Values,
    arg: &str,
    rest: &mut impl Iterator<Item = String>,
) -> Result<(), String> {
    let body = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).unwrap_or(arg);
    let (name, given) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    if name == "help" || name == "h" {
        values.0.entry("help").or_default().push("true".into());
        return Ok(());
    }
    let short = |f: &Flag| f.short.is_some_and(|c| name.len() == 1 && name.starts_with(c));
    let flag = known.iter().find(|f| f.name == name || short(f)).ok_or_else(|| format!("unknown flag: {arg}"))?;
    let value = match (flag.value, given) {
        (None, None) => "true".to_owned(),
        (None, Some(value)) if value == "true" || value == "false" => value,
        (None, Some(value)) => return Err(format!("--{}: {value:?} is not true or false", flag.name)),
        (Some(_), Some(value)) => value,
        (Some(_), None) => rest.next().ok_or_else(|| format!("--{} needs a value", flag.name))?,
    };
    values.0.entry(flag.name).or_default().push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::verbs::{GLOBALS, VERBS};

    fn run(line: &str) -> Result<Parsed, String> {
        parse(GLOBALS, VERBS, line.split(' ').map(str::to_owned))
    }

    #[test]
    fn both_orders_and_both_forms() {
        for line in [
            "create --bundle /b box",
            "create box --bundle /b",
            "create --bundle=/b box",
            "create box -b /b",
            "create -bundle /b box",
        ] {
            let p = run(line).unwrap();
            assert_eq!(
                (p.flags.last("bundle"), p.operands.as_slice()),
                (Some("/b"), &["box".to_owned()][..]),
                "{line}"
            );
        }
    }

    #[test]
    fn globals_come_first() {
        let p = run("--root /r --log=/l --log-format json --rootless=auto state box").unwrap();
        assert_eq!(p.globals.last("root"), Some("/r"));
        assert_eq!(p.globals.last("log"), Some("/l"));
        assert_eq!(p.verb.unwrap().name, "state");
    }

    #[test]
    fn exec_and_kill_stop_at_the_id() {
        let p = run("exec -t --env A=1 -e B=2 box ls -l --all").unwrap();
        assert!(p.flags.on("tty"));
        assert_eq!(p.flags.all("env"), ["A=1", "B=2"]);
        assert_eq!(p.operands, ["box", "ls", "-l", "--all"]);
        assert_eq!(run("kill --all box -9").unwrap().operands, ["box", "-9"]);
    }

    #[test]
    fn one_dash_and_switch_values() {
        assert!(run("run -no-subreaper box").unwrap().flags.on("no-subreaper"));
        assert!(!run("run --detach=false box").unwrap().flags.on("detach"));
        assert_eq!(run("exec -- box -x").unwrap().operands, ["box", "-x"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(run("create --nope box").unwrap_err().contains("--nope"));
        assert!(run("create box --bundle").unwrap_err().contains("--bundle needs a value"));
        assert!(run("frobnicate").unwrap_err().contains("frobnicate"));
        assert!(run("create --preserve-fds x box").unwrap().flags.number("preserve-fds").is_err());
    }
}
