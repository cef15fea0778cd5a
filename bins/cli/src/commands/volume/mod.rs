//! Volumes.

pub mod create;
pub mod ls;
pub mod prune;
pub mod rm;

use clap::Subcommand;

use super::inspect::{Kind, OfKind};
use crate::client::Client;

/// `pier volume ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Make a volume
    Create(create::Args),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Print volumes as JSON
    Inspect(OfKind),
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Remove anonymous volumes that no container uses
    Prune(prune::Args),
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Create(args) => args.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client, Kind::Volume).await,
            Self::Rm(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
        }
    }
}
