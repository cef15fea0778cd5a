//! Verbs that make images of others: `flatten`, `rebase`, `mutate`, `manifest`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{FormatArg, Progress, Recast, Sides};

/// What all of them have. A location without a transport is an image of the store.
#[derive(Debug, ClapArgs)]
pub struct Make {
    /// Image of the store, or docker://, oci:, …
    pub source: String,
    /// Name in the store, or docker://, oci:, …
    pub destination: String,
    /// os/architecture[/variant] [default: this host's]
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub registry: Sides,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, ClapArgs)]
pub struct Flatten {
    #[command(flatten)]
    pub make: Make,
    /// Of the one layer: gzip, zstd, none
    #[arg(long, default_value = "gzip")]
    pub compression: String,
}

#[derive(Debug, ClapArgs)]
pub struct Rebase {
    #[command(flatten)]
    pub make: Make,
    /// What the image was built on [default: what its annotations say]
    #[arg(long, value_name = "IMAGE")]
    pub old_base: Option<String>,
    /// What it shall stand on [default: the base of its annotations, as it is now]
    #[arg(long, value_name = "IMAGE")]
    pub new_base: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Mutate {
    #[command(flatten)]
    pub make: Make,
    /// Dockerfile instruction for the config: 'ENV A=b'; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Annotation of the manifest; an empty value takes it away
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// A tar that becomes one more layer
    #[arg(long, value_name = "FILE")]
    pub append: Vec<PathBuf>,
    /// Time of creation, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub created: Option<String>,
}

/// Indexes: one name for the images of several platforms.
#[derive(Debug, Subcommand)]
pub enum Manifest {
    /// Begin an index, with the images that are named
    Create {
        name: String,
        /// At a registry, or docker://, oci:, store:, …; of an index all its images
        images: Vec<String>,
        /// Only these platforms
        #[arg(long, value_name = "PLATFORM")]
        platform: Vec<oci::Platform>,
        /// Annotation of the index
        #[arg(long, value_name = "KEY=VALUE")]
        annotation: Vec<String>,
        /// Go on with one that exists
        #[arg(short, long)]
        amend: bool,
        /// Begin anew when it exists
        #[arg(long, conflicts_with = "amend")]
        replace: bool,
        #[command(flatten)]
        registry: super::Registry,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Add images to an index
    Add {
        name: String,
        #[arg(required = true)]
        images: Vec<String>,
        /// Only these platforms
        #[arg(long, value_name = "PLATFORM")]
        platform: Vec<oci::Platform>,
        #[command(flatten)]
        registry: super::Registry,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Change what an index says of an image
    Annotate(Annotate),
    /// Take images out of an index
    Remove {
        name: String,
        /// Digest, its beginning, or the name that was given
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show an index that is being put together, or the manifest of any location
    Inspect {
        name: String,
        #[command(flatten)]
        registry: super::Registry,
    },
    /// Copy the images and the index
    Push {
        name: String,
        /// docker://, oci:, …, or a name at a registry [default: the index's name]
        destination: Option<String>,
        /// Forget the index when it has arrived
        #[arg(long, alias = "purge")]
        rm: bool,
        #[command(flatten)]
        recast: Recast,
        /// One more tag at the destination; may be repeated
        #[arg(long, value_name = "TAG")]
        additional_tag: Vec<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        registry: Sides,
        #[command(flatten)]
        progress: Progress,
    },
    /// Forget indexes; what was pushed stays
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List indexes that are being put together
    Ls {
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Annotate {
    pub name: String,
    /// Digest, its beginning, or the name that was given; none: the index itself
    pub image: Option<String>,
    #[arg(long)]
    pub os: Option<String>,
    #[arg(long)]
    pub arch: Option<String>,
    #[arg(long)]
    pub variant: Option<String>,
    #[arg(long)]
    pub os_version: Option<String>,
    /// May be repeated
    #[arg(long, value_name = "FEATURE")]
    pub os_features: Vec<String>,
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    #[command(flatten)]
    pub format: FormatArg,
}
