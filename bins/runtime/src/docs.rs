//! Help text, completion scripts and manual pages, all from the table of commands.

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::{Flag, Parsed, Verb};
use crate::verbs::{GLOBALS, VERBS};

/// The help of a command, or of all, laid out as runc's: people and scripts look for its headings.
pub fn help(verb: Option<&Verb>, program: &str) -> String {
    let name = verb.map_or_else(|| program.to_owned(), |v| format!("{program} {}", v.name));
    let about = verb.map_or("Open Container Initiative runtime, safe and fast", |v| v.help);
    let mut text = format!("NAME:\n   {name} - {about}\n\nUSAGE:\n");
    match verb {
        Some(verb) => text.push_str(&format!("   {name} [command options] {}\n", verb.operands)),
        None => {
            text.push_str(&format!("   {name} [global options] command [command options] [arguments...]\n"));
            text.push_str(&format!("\nVERSION:\n   {}\n\nCOMMANDS:\n", env!("CARGO_PKG_VERSION")));
            for verb in VERBS.iter().filter(|v| !v.hidden) {
                text.push_str(&format!("   {:<12} {}\n", verb.name, verb.help));
            }
        }
    }
    text.push_str(if verb.is_some() { "\nOPTIONS:\n" } else { "\nGLOBAL OPTIONS:\n" });
    verb.map_or(GLOBALS, |v| v.flags).iter().for_each(|flag| text.push_str(&option(flag)));
    text.push_str(&format!("   {:<34} show help\n", "--help, -h"));
    text
}

fn option(flag: &Flag) -> String {
    let value = flag.value.map(|v| format!(" {v}")).unwrap_or_default();
    let short = flag.short.map(|c| format!(", -{c}{value}")).unwrap_or_default();
    format!("   {:<34} {}\n", format!("--{}{value}{short}", flag.name), flag.help)
}

/// The same table as clap knows it; only for generated documents, never for parsing.
struct Documented;

impl CommandFactory for Documented {
    fn command() -> Command {
        let mut command =
            Command::new("pier-runtime").about("An OCI runtime with runc's command line").args(GLOBALS.iter().map(arg));
        for verb in VERBS {
            let operands =
                verb.operands.split_whitespace().filter(|o| o.starts_with(|c: char| c.is_ascii_alphabetic()));
            let operands = operands.take(1).map(|o| Arg::new(o).required(true));
            command = command.subcommand(
                Command::new(verb.name)
                    .about(verb.help)
                    .hide(verb.hidden)
                    .args(verb.flags.iter().map(arg))
                    .args(operands),
            );
        }
        command
    }

    fn command_for_update() -> Command {
        Self::command()
    }
}

fn arg(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help);
    let arg = flag.short.map_or(arg.clone(), |c| arg.short(c));
    match flag.value {
        Some(name) => arg.value_name(name).action(ArgAction::Append),
        None => arg.action(ArgAction::SetTrue),
    }
}

/// `completion SHELL` and `man DIR`.
pub fn generate(parsed: &Parsed) -> ExitCode {
    let operand = parsed.operands.first().map(String::as_str).unwrap_or_default();
    let what = if parsed.verb.is_some_and(|v| v.name == "man") {
        console::Generate::Man { dir: operand.into() }
    } else {
        match operand.parse() {
            Ok(shell) => console::Generate::Completion { shell },
            Err(e) => {
                eprintln!("Error: {e}");
                return ExitCode::from(1);
            }
        }
    };
    console::finish(
        "pier-runtime",
        console::ErrorFormat::default(),
        console::generate::<Documented>(&what).map(|()| 0),
        |_| (None, None),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        Documented::command().debug_assert();
        assert!(help(None, "runc").starts_with("NAME:\n   runc - Open Container Initiative runtime"));
        assert!(VERBS.iter().all(|v| help(Some(v), "x").contains(&format!("\n   x {} - ", v.name))));
    }
}
