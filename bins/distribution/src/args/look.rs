//! Verbs that only read.

use clap::Args as ClapArgs;

use super::{FormatArg, Registry};

#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// An image of the store, or docker://, oci:, …
    pub image: String,
    /// The manifest or index, byte for byte
    #[arg(long)]
    pub raw: bool,
    /// The image config, byte for byte
    #[arg(long, conflicts_with = "raw")]
    pub config: bool,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// json, or a template: '{{.Digest}} {{.Config.os}}'
    #[arg(short, long, value_name = "FORMAT", conflicts_with_all = ["raw", "config"])]
    pub format: Option<String>,
    #[command(flatten)]
    pub registry: Registry,
}

#[derive(Debug, ClapArgs)]
pub struct Tags {
    pub repository: String,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Search {
    /// WORD, or REGISTRY/WORD
    pub term: String,
    /// is-official=true|false, is-automated=true|false, stars=NUMBER
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Most results, 1 to 100
    #[arg(long, default_value_t = distribution::search::LIMIT, value_name = "NUMBER")]
    pub limit: usize,
    /// Whole descriptions
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Digest {
    /// A name at a registry, or docker://, oci:, store:, …
    pub image: String,
    /// Of the image for this platform, not of the index
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    /// Name and digest
    #[arg(long)]
    pub full_ref: bool,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct History {
    /// An image of the store, or docker://, oci:, …
    pub image: String,
    /// Whole commands
    #[arg(long)]
    pub no_trunc: bool,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Diff {
    /// Image or snapshot of the store; a snapshot alone is compared with its image
    pub old: String,
    /// Image or snapshot of the store
    pub new: Option<String>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Ls {
    /// Only images whose name fits this pattern
    pub pattern: Option<String>,
    /// reference=, label=, label!=, dangling=, before=, since= (an image), until= (a time, or an age such as 24h)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Also the digests
    #[arg(long)]
    pub digests: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub format: FormatArg,
}
