//! From logical lines to instructions.

use super::diagnostic::{Diagnostic, Problem, nearest};
use super::flags::{self, Flags};
use super::instruction::{Command, Copy, Healthcheck, Instruction, Run, RunNetwork, Statement};
use super::lex::{self, Directives, Heredoc, Line};
use super::mount;

type Result<T> = std::result::Result<T, Problem>;

/// A Dockerfile, parsed.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// How errors call it.
    pub file: String,
    /// The text.
    pub source: String,
    /// Settings at the top.
    pub directives: Directives,
    /// The instructions in order.
    pub statements: Vec<Statement>,
    /// What works but should not be written so.
    pub warnings: Vec<String>,
}

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a whole Dockerfile. `file` is what errors call it.
pub fn parse(file: &str, source: &str) -> std::result::Result<Dockerfile, Diagnostic> {
    let place = |(line, problem)| Diagnostic::at(file, source, line, problem);
    let lexed = lex::lex(source).map_err(place)?;
    let escape = lexed.directives.escape;
    let mut statements = Vec::new();
    let mut warnings: Vec<String> =
        lexed.warnings.iter().map(|(line, text)| format!("{file}:{line}: {text}")).collect();
    for line in lexed.lines {
        let instruction = instruction(&line, escape).map_err(|problem| place((line.start, problem)))?;
        warnings.extend(advice(&instruction).map(|text| format!("{file}:{}: {text}", line.start)));
        statements.push(Statement { line: line.start, end: line.end, text: one_line(&line.text), instruction });
    }
    if statements.is_empty() {
        return Err(place((1, Problem::new("the Dockerfile has no instructions"))));
    }
    Ok(Dockerfile { file: file.into(), source: source.into(), directives: lexed.directives, statements, warnings })
}

/// Parses the text of one instruction, as `ONBUILD` triggers and `--change` flags have it.
pub fn parse_one(text: &str, escape: char) -> Result<Instruction> {
    instruction(&Line { start: 1, end: 1, text: text.into(), heredocs: Vec::new() }, escape)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn advice(instruction: &Instruction) -> Option<String> {
    match instruction {
        Instruction::Maintainer(_) => {
            Some("MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors".into())
        }
        Instruction::Cmd(Command::Shell(text)) | Instruction::Entrypoint(Command::Shell(text))
            if text.starts_with('[') =>
        {
            Some("looks like a JSON array but is none, so the shell gets it".into())
        }
        _ => None,
    }
}

fn instruction(line: &Line, escape: char) -> Result<Instruction> {
    let (word, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let name = word.to_ascii_uppercase();
    if !NAMES.contains(&name.as_str()) {
        let problem = Problem::new(format!("unknown instruction {word}"));
        return Err(match nearest(&name, &NAMES) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint(format!("the instructions are {}", NAMES.join(", "))),
        });
    }
    let (flags, rest) = flags::split(&name, rest, known_flags(&name), escape)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(Problem::new(format!("{name} needs at least one argument")));
    }
    Ok(match name.as_str() {
        "ADD" => Instruction::Add(copy(&name, &flags, rest, &line.heredocs, escape)?),
        "ARG" => Instruction::Arg(args(rest, escape)?),
        "CMD" => Instruction::Cmd(command(rest)),
        "COPY" => Instruction::Copy(copy(&name, &flags, rest, &line.heredocs, escape)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "ENV" => Instruction::Env(pairs(&name, rest, escape)?),
        "EXPOSE" => Instruction::Expose(rest.into()),
        "FROM" => from(&flags, rest)?,
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(&flags, rest)?),
        "LABEL" => Instruction::Label(pairs(&name, rest, escape)?),
        "MAINTAINER" => Instruction::Maintainer(rest.into()),
        "ONBUILD" => onbuild(rest, escape)?,
        "RUN" => Instruction::Run(run(&flags, rest, &line.heredocs)?),
        "SHELL" => Instruction::Shell(shell(rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(rest.into()),
        "USER" => Instruction::User(rest.into()),
        "VOLUME" => Instruction::Volume(json(rest).unwrap_or_else(|| words(rest))),
        _ => Instruction::Workdir(rest.into()),
    })
}

fn known_flags(name: &str) -> &'static [&'static str] {
    match name {
        "ADD" => &["chown", "chmod", "link", "exclude"],
        "COPY" => &["from", "chown", "chmod", "link", "exclude"],
        "FROM" => &["platform"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        "RUN" => &["mount", "network", "security"],
        _ => &[],
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A JSON array of strings, if the text is one.
fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

fn command(text: &str) -> Command {
    json(text).map_or_else(|| Command::Shell(text.into()), Command::Exec)
}

fn copy(name: &str, flags: &Flags, text: &str, heredocs: &[Heredoc], escape: char) -> Result<Copy> {
    let mut paths = json(text).unwrap_or_else(|| words(text));
    let destination = paths.pop().unwrap_or_default();
    if paths.is_empty() {
        return Err(Problem::new(format!("{name} needs at least one source and a destination")));
    }
    let mut inline = heredocs.iter();
    let mut result = Copy {
        destination,
        from: flags.one("from")?,
        chown: flags.one("chown")?,
        chmod: flags.one("chmod")?,
        exclude: flags.many("exclude"),
        ..Copy::default()
    };
    for path in paths {
        match lex::mark(&path, escape).and_then(|_| inline.next()) {
            Some(doc) => result.inline.push(doc.clone()),
            None => result.sources.push(path),
        }
    }
    if result.from.is_some() && !result.inline.is_empty() {
        return Err(Problem::new("--from does not go together with here-documents"));
    }
    Ok(result)
}

fn args(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    let parse = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Problem::new(format!("ARG {word} has no name"))),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    lex::raw_words(text, escape).into_iter().map(parse).collect()
}

/// `key=value …`, or the old `key value with spaces`.
fn pairs(name: &str, text: &str, escape: char) -> Result<Vec<(String, String)>> {
    let words = lex::raw_words(text, escape);
    if !words[0].contains('=') {
        let (key, value) = text.split_once(char::is_whitespace).ok_or_else(|| {
            Problem::new(format!("{name} must have two arguments")).hint(format!("write {name} {text}=VALUE"))
        })?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let parse = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(Problem::new(format!("{name}: a name is missing before {word}"))),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Problem::new(format!("syntax error: {word:?} must be of the form name=value"))
            .hint("put values with spaces into double quotes")),
    };
    words.into_iter().map(parse).collect()
}

fn from(flags: &Flags, text: &str) -> Result<Instruction> {
    let parts = words(text);
    let name = match parts.as_slice() {
        [_] => None,
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        _ => {
            return Err(Problem::new("FROM takes an image and, if you like, a name").hint("write FROM IMAGE [AS NAME]"));
        }
    };
    Ok(Instruction::From { image: parts[0].clone(), name, platform: flags.one("platform")? })
}

fn stage_name(name: &str) -> Result<String> {
    let lower = name.to_ascii_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if valid && lower != "scratch" {
        return Ok(lower);
    }
    Err(Problem::new(format!("invalid name for a stage: {name:?}"))
        .hint("it starts with a letter and has only letters, digits, - _ and ."))
}

fn healthcheck(flags: &Flags, text: &str) -> Result<Healthcheck> {
    let time = |name: &str| flags.one(name)?.map_or(Ok(0), |value| flags::duration(name, &value));
    let retries = match flags.one("retries")? {
        None => 0,
        Some(text) => text
            .parse()
            .ok()
            .filter(|count| *count >= 0)
            .ok_or_else(|| Problem::new(format!("invalid number {text:?} of --retries")))?,
    };
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let command = match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => None,
        "NONE" => return Err(Problem::new("HEALTHCHECK NONE takes no arguments")),
        "CMD" if !rest.trim().is_empty() => Some(command(rest.trim())),
        "CMD" => return Err(Problem::new("HEALTHCHECK CMD needs a command")),
        _ => {
            return Err(Problem::new(format!("unknown type {kind:?} of HEALTHCHECK"))
                .hint("write HEALTHCHECK CMD command, or HEALTHCHECK NONE"));
        }
    };
    Ok(Healthcheck {
        command,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    })
}

fn onbuild(text: &str, escape: char) -> Result<Instruction> {
    match parse_one(text, escape)? {
        Instruction::From { .. } | Instruction::Maintainer(_) | Instruction::Onbuild(_) => {
            Err(Problem::new("FROM, MAINTAINER and ONBUILD cannot be triggers of ONBUILD"))
        }
        _ => Ok(Instruction::Onbuild(text.into())),
    }
}

fn run(flags: &Flags, text: &str, heredocs: &[Heredoc]) -> Result<Run> {
    let network = match flags.one("network")?.as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("host") => RunNetwork::Host,
        Some("none") => RunNetwork::None,
        Some(other) => {
            return Err(
                Problem::new(format!("unknown network {other:?} of RUN")).hint("known are default, host and none")
            );
        }
    };
    match flags.one("security")?.as_deref() {
        None | Some("sandbox") => {}
        Some(other) => return Err(Problem::new(format!("RUN --security={other} is not supported"))),
    }
    let mounts = flags.many("mount").iter().map(|text| mount::parse(text)).collect::<Result<_>>()?;
    Ok(Run { command: command(text), heredocs: heredocs.to_vec(), mounts, network })
}

fn shell(text: &str) -> Result<Vec<String>> {
    json(text).filter(|words| !words.is_empty()).ok_or_else(|| {
        Problem::new("SHELL needs its arguments in JSON form").hint("write SHELL [\"/bin/bash\", \"-c\"]")
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
