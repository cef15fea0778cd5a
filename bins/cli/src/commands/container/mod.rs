//! Containers.

pub mod attach;
pub mod commit;
pub mod cp;
pub mod create;
pub mod diff;
pub mod exec;
pub mod export;
mod foreground;
pub mod kill;
pub mod logs;
pub mod ls;
pub mod pause;
pub mod port;
pub mod prune;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod unpause;
pub mod update;
pub mod wait;

use clap::Subcommand;

use super::inspect::{Kind, OfKind};
use crate::client::Client;

/// Verbs that stand at the top and below `container`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a container of an image and run it
    #[command(disable_help_flag = true)]
    Run(Box<run::Args>),
    /// Make a container without starting it
    #[command(disable_help_flag = true)]
    Create(Box<create::Args>),
    /// Start containers
    Start(start::Args),
    /// Stop containers
    Stop(stop::Args),
    /// Stop containers and start them again
    Restart(restart::Args),
    /// Send a signal to containers
    Kill(kill::Args),
    /// Remove containers
    Rm(rm::Args),
    /// Run one more process in a container
    Exec(exec::Args),
    /// Join the terminal to a running container
    Attach(attach::Args),
    /// Print what a container wrote
    Logs(logs::Args),
    /// Print the processes of a container
    Top(top::Args),
    /// Show what containers use, live
    Stats(stats::Args),
    /// Wait until containers end and print their exit codes
    Wait(wait::Args),
    /// Freeze containers
    Pause(pause::Args),
    /// Let frozen containers go on
    Unpause(unpause::Args),
    /// Copy files between a container and this host
    Cp(cp::Args),
    /// Print a container's published ports
    Port(port::Args),
    /// Give a container another name
    Rename(rename::Args),
    /// Change a container's restart policy
    Update(update::Args),
    /// Make an image of a container's changes
    Commit(commit::Args),
    /// Print what a container changed in its file system
    Diff(diff::Args),
    /// Write a container's file system as a tar
    Export(export::Args),
}

/// `pier container ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    #[command(flatten)]
    Shared(Verb),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ls::Args),
    /// Print containers as JSON
    Inspect(OfKind),
    /// Remove all stopped containers
    Prune(prune::Args),
}

impl Verb {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Run(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Start(args) => args.run(client).await,
            Self::Stop(args) => args.run(client).await,
            Self::Restart(args) => args.run(client).await,
            Self::Kill(args) => args.run(client).await,
            Self::Rm(args) => args.run(client).await,
            Self::Exec(args) => args.run(client).await,
            Self::Attach(args) => args.run(client).await,
            Self::Logs(args) => args.run(client).await,
            Self::Top(args) => args.run(client).await,
            Self::Stats(args) => args.run(client).await,
            Self::Wait(args) => args.run(client).await,
            Self::Pause(args) => args.run(client).await,
            Self::Unpause(args) => args.run(client).await,
            Self::Cp(args) => args.run(client).await,
            Self::Port(args) => args.run(client).await,
            Self::Rename(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Commit(args) => args.run(client).await,
            Self::Diff(args) => args.run(client).await,
            Self::Export(args) => args.run(client).await,
        }
    }
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Shared(verb) => verb.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client, Kind::Container).await,
            Self::Prune(args) => args.run(client).await,
        }
    }
}
