//! Help text, completion scripts and manual pages, all from the table of commands.

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::{Flag, Parsed, Verb};
use crate::verbs::{GLOBALS, VERBS};

/// The help of a command, or of all.
pub fn help(verb: Option<&Verb>) -> String {
    let mut text = String::new();
    let flags = match verb {
        Some(verb) => {
            text.push_str(&format!(
                "pier-runtime {}: {}\n\nUsage: pier-runtime [GLOBAL FLAGS] {0} [FLAGS] {}\n",
                verb.name, verb.help, verb.operands
            ));
            verb.flags
        }
        None => {
            text.push_str("pier-runtime: an OCI runtime with runc's command line\n\nUsage: pier-runtime [GLOBAL FLAGS] COMMAND ...\n\nCommands:\n");
            for verb in VERBS.iter().filter(|v| !v.hidden) {
                text.push_str(&format!("  {:<10} {}\n", verb.name, verb.help));
            }
            GLOBALS
        }
    };
    if !flags.is_empty() {
        text.push_str("\nFlags:\n");
    }
    for flag in flags {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |c| format!("-{c}, "));
        let name = format!("{short}--{} {}", flag.name, flag.value.unwrap_or_default());
        text.push_str(&format!("  {name:<34} {}\n", flag.help));
    }
    text
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
        assert!(help(None).contains("create"));
    }
}
