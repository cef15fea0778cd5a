//! Networks.

pub mod check;
pub mod connect;
pub mod create;
pub mod diagnose;
pub mod disconnect;
pub mod ls;
pub mod policy;
pub mod prune;
pub mod rm;
pub mod stats;
pub mod update;

use clap::Subcommand;

use super::inspect::{Kind, OfKind};
use crate::client::Client;

/// `pier network ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Make a network
    Create(create::Args),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Print networks as JSON
    Inspect(OfKind),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Change a network's upstream name servers
    Update(update::Args),
    /// Remove networks that no container is on
    Prune(prune::Args),
    /// Put a container on a network
    Connect(connect::Args),
    /// Take a container off a network
    Disconnect(disconnect::Args),
    /// Say which containers may talk to which, by labels
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Show what went over the links of containers
    Stats(stats::Args),
    /// Explain why a name, a port or a route of a container does not work
    Diagnose(diagnose::Args),
    /// Say how the host differs from the records of networks
    Check(check::Args),
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Create(args) => args.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client, Kind::Network).await,
            Self::Rm(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
            Self::Connect(args) => args.run(client).await,
            Self::Disconnect(args) => args.run(client).await,
            Self::Policy(verb) => verb.run(client).await,
            Self::Stats(args) => args.run(client).await,
            Self::Diagnose(args) => args.run(client).await,
            Self::Check(args) => args.run(client).await,
        }
    }
}
