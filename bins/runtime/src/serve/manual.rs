//! Completion scripts and manual pages, from the table of commands.

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Flag;
use crate::verbs::{GLOBALS, VERBS};

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
pub fn generate(verb: &str, operand: &str) -> anyhow::Result<u8> {
    let what = if verb == "man" {
        console::Generate::Man { dir: operand.into() }
    } else {
        console::Generate::Completion { shell: operand.parse().map_err(anyhow::Error::msg)? }
    };
    console::generate::<Documented>(&what).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        Documented::command().debug_assert();
    }
}
