//! The engine as a whole.

pub mod df;
mod df_verbose;
pub mod events;
pub mod info;
pub mod prune;
pub mod version;

use clap::Subcommand;

use crate::client::Client;

/// `pier system ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Print what this engine is and has
    Info(info::Args),
    /// Print what happens, as it happens
    Events(events::Args),
    /// Print the use of the disk
    Df(df::Args),
    /// Remove what is not used
    Prune(prune::Args),
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Info(args) => args.run(client).await,
            Self::Events(args) => args.run(client).await,
            Self::Df(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
        }
    }
}
