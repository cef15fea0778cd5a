//! Images and registries.

pub mod build;
mod build_output;
mod build_progress;
pub mod builder_prune;
pub mod history;
pub mod import;
pub mod load;
pub mod login;
pub mod logout;
pub mod ls;
pub mod manifest;
pub mod manifest_inspect;
pub mod prune;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod search;
pub mod tag;

use clap::Subcommand;

use super::inspect::OfImage;
use crate::client::Client;

/// Verbs that stand at the top and below `image`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Fetch an image from a registry
    Pull(pull::Args),
    /// Send an image to a registry
    Push(push::Args),
    /// Give an image one more name
    Tag(tag::Args),
    /// Write images to an archive
    Save(save::Args),
    /// Read images from an archive
    Load(load::Args),
    /// Make an image of a tar of a root file system
    Import(import::Args),
    /// Print how an image came to be
    History(history::Args),
}

/// `pier image ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    #[command(flatten)]
    Shared(Verb),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Print images as JSON
    Inspect(OfImage),
    /// Remove images without a name
    Prune(prune::Args),
}

/// `pier builder ...`
#[derive(Debug, Subcommand)]
pub enum BuilderNoun {
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Empty the build cache
    Prune(builder_prune::Args),
}

impl Verb {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Build(args) => args.run(client).await,
            Self::Pull(args) => args.run(client).await,
            Self::Push(args) => args.run(client).await,
            Self::Tag(args) => args.run(client).await,
            Self::Save(args) => args.run(client).await,
            Self::Load(args) => args.run(client).await,
            Self::Import(args) => args.run(client).await,
            Self::History(args) => args.run(client).await,
        }
    }
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Shared(verb) => verb.run(client).await,
            Self::Ls(args) => args.run(client).await,
            Self::Rm(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
        }
    }
}

impl BuilderNoun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Build(args) => args.run(client).await,
            Self::Prune(args) => args.run(client).await,
        }
    }
}
