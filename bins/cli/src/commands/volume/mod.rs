//! Volumes.

pub mod change;
pub mod check;
pub mod create;
pub mod ls;
pub mod prune;
pub mod rm;
pub mod snapshot;
pub mod transfer;

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
    /// Change labels and size
    Update(change::Update),
    /// Give a volume another name, also while containers use it
    Rename(change::Rename),
    /// Make a volume with the same content
    Clone(change::Clone),
    /// Keep states of a volume
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Write a volume's content as a tar, or send it as an OCI artifact
    Export(transfer::Export),
    /// Fill a volume from a tar or an OCI artifact
    Import(transfer::Import),
    /// Look for what is not as it should be
    Check(check::Check),
    /// List the volume drivers outside that can be found
    Drivers(check::Drivers),
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Create(args) => args.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client, Kind::Volume).await,
            Self::Rm(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Rename(args) => args.run(client).await,
            Self::Clone(args) => args.run(client).await,
            Self::Snapshot(verb) => verb.run(client).await,
            Self::Export(args) => args.run(client).await,
            Self::Import(args) => args.run(client).await,
            Self::Check(args) => args.run(client).await,
            Self::Drivers(args) => args.run(client).await,
        }
    }
}
