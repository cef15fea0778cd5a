//! Instructions that only change the image's configuration.

use oci::image::{Empty, Healthcheck};

use super::diagnostic::Problem;
use super::instruction::{self, Command, Instruction};
use super::stage::State;

type Result<T> = std::result::Result<T, Problem>;

/// Applies an instruction; false when it is not one of these.
pub(super) fn apply(state: &mut State, instruction: &Instruction) -> Result<bool> {
    match instruction {
        Instruction::Cmd(command) => {
            state.config.config.cmd = argv(state, command);
            state.own_cmd = true;
            state.note(format!("CMD {}", json(&state.config.config.cmd)), None);
        }
        Instruction::Entrypoint(command) => {
            state.config.config.entrypoint = argv(state, command);
            if !state.own_cmd {
                state.config.config.cmd.clear();
            }
            state.note(format!("ENTRYPOINT {}", json(&state.config.config.entrypoint)), None);
        }
        Instruction::Env(pairs) => env(state, pairs)?,
        Instruction::Label(pairs) => label(state, pairs)?,
        Instruction::Expose(text) => expose(state, text)?,
        Instruction::Healthcheck(check) => {
            state.config.config.healthcheck = Some(healthcheck(check));
            state.note("HEALTHCHECK", None);
        }
        Instruction::Maintainer(name) => {
            state.config.author = Some(name.clone());
            state.note(format!("MAINTAINER {name}"), None);
        }
        Instruction::Onbuild(text) => {
            state.config.config.on_build.push(text.clone());
            state.note(format!("ONBUILD {text}"), None);
        }
        Instruction::Shell(words) => {
            state.config.config.shell.clone_from(words);
            state.note(format!("SHELL {}", json(words)), None);
        }
        Instruction::StopSignal(text) => {
            let signal = state.word(text)?;
            check_signal(&signal)?;
            state.note(format!("STOPSIGNAL {signal}"), None);
            state.config.config.stop_signal = signal;
        }
        Instruction::User(text) => {
            let user = state.word(text)?;
            state.note(format!("USER {user}"), None);
            state.config.config.user = user;
        }
        Instruction::Volume(paths) => volume(state, paths)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn argv(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => state.shell().into_iter().chain([text.clone()]).collect(),
    }
}

pub(super) fn json(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

/// All pairs of one instruction see the values from before it.
fn expanded(state: &mut State, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
    pairs.iter().map(|(key, value)| Ok((state.word(key)?, state.word(value)?))).collect()
}

fn env(state: &mut State, pairs: &[(String, String)]) -> Result<()> {
    let pairs = expanded(state, pairs)?;
    for (key, value) in &pairs {
        if key.is_empty() {
            return Err(Problem::new("the name of a variable is empty after expansion"));
        }
        state.set_env(key, value);
    }
    let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    state.note(format!("ENV {}", text.join(" ")), None);
    Ok(())
}

fn label(state: &mut State, pairs: &[(String, String)]) -> Result<()> {
    let pairs = expanded(state, pairs)?;
    let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    state.note(format!("LABEL {}", text.join(" ")), None);
    state.config.config.labels.extend(pairs);
    Ok(())
}

fn volume(state: &mut State, paths: &[String]) -> Result<()> {
    let mut words = Vec::new();
    for path in paths {
        let path = state.word(path)?;
        if path.is_empty() {
            return Err(Problem::new("VOLUME: a path is empty"));
        }
        state.config.config.volumes.insert(path.clone(), Empty {});
        words.push(path);
    }
    state.note(format!("VOLUME {}", json(&words)), None);
    Ok(())
}

fn expose(state: &mut State, text: &str) -> Result<()> {
    let words = state.words(text)?;
    for word in &words {
        for port in ports(word)? {
            state.config.config.exposed_ports.insert(port, Empty {});
        }
    }
    state.note(format!("EXPOSE {}", words.join(" ")), None);
    Ok(())
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(word: &str) -> Result<Vec<String>> {
    let bad = || Problem::new(format!("invalid port {word:?} of EXPOSE")).hint("write PORT[-PORT][/tcp|/udp|/sctp]");
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(check: &instruction::Healthcheck) -> Healthcheck {
    let words = |kind: &str, rest: &[String]| std::iter::once(kind.to_owned()).chain(rest.iter().cloned()).collect();
    let test = match &check.command {
        None => words("NONE", &[]),
        Some(Command::Exec(argv)) => words("CMD", argv),
        Some(Command::Shell(text)) => words("CMD-SHELL", std::slice::from_ref(text)),
    };
    Healthcheck {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        retries: check.retries,
    }
}

/// Names and numbers that signal(7) knows.
fn check_signal(text: &str) -> Result<()> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = text.parse::<u32>().is_ok_and(|number| (1..=64).contains(&number));
    if number || NAMES.contains(&name) || name.starts_with("RTMIN") || name.starts_with("RTMAX") {
        return Ok(());
    }
    Err(Problem::new(format!("unknown signal {text:?}")))
}
