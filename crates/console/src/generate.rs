//! Completion scripts and manual pages, made from the same clap definition as the flags.
use clap::{Command, CommandFactory};
use std::io::Write;
use std::path::PathBuf;

/// The hidden verbs every program has besides its own.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Generate {
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        dir: PathBuf,
    },
}

/// Does one of them for the program `C`.
pub fn generate<C: CommandFactory>(what: &Generate) -> anyhow::Result<()> {
    let mut command = C::command();
    let name = command.get_name().to_string();
    match what {
        Generate::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, name, &mut script);
            std::io::stdout().write_all(&script)?;
        }
        Generate::Man { dir } => {
            std::fs::create_dir_all(dir)?;
            pages(command, &name, dir)?;
        }
    }
    Ok(())
}

fn pages(command: Command, name: &str, dir: &std::path::Path) -> anyhow::Result<()> {
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        pages(sub.clone(), &format!("{name}-{}", sub.get_name()), dir)?;
    }
    let static_name: &'static str = Box::leak(name.to_string().into_boxed_str());
    let mut page = Vec::new();
    clap_mangen::Man::new(command.name(static_name)).render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    Ok(())
}
