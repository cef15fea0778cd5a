//! `artifact`: files in registries and layouts.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{FormatArg, Progress, Registry};

#[derive(Debug, Subcommand)]
pub enum Artifact {
    /// Send files as one artifact
    Push(Push),
    /// Send files as an artifact about an image: one of its referrers
    Attach(Push),
    /// Write the files of an artifact into a directory
    Pull {
        /// A name at a registry, or docker://, oci:, …
        artifact: String,
        /// The directory
        #[arg(short, long, default_value = ".")]
        output: PathBuf,
        /// Replace files that are there
        #[arg(short, long, alias = "overwrite")]
        force: bool,
        #[command(flatten)]
        registry: Registry,
        #[command(flatten)]
        progress: Progress,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show what refers to an image or artifact
    Discover {
        /// A name at a registry, or docker://, oci:
        image: String,
        /// Only of this type
        #[arg(long, value_name = "TYPE")]
        artifact_type: Option<String>,
        /// To the image for this platform, not to the index
        #[arg(long)]
        platform: Option<oci::Platform>,
        #[command(flatten)]
        registry: Registry,
        #[command(flatten)]
        format: FormatArg,
    },
    /// List the files of an artifact
    Ls {
        /// A name at a registry, or docker://, oci:, …
        artifact: String,
        #[command(flatten)]
        registry: Registry,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Push {
    /// A name at a registry, or docker://, oci:, …
    pub name: String,
    /// Files and directories, each with its media type if it has one
    #[arg(value_name = "FILE[:TYPE]")]
    pub files: Vec<String>,
    /// What the artifact is
    #[arg(long, value_name = "TYPE", default_value = "")]
    pub artifact_type: String,
    /// Of the manifest
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// A config
    #[arg(long, value_name = "FILE[:TYPE]")]
    pub config: Option<String>,
    /// attach: to the image for this platform, not to the index
    #[arg(long)]
    pub platform: Option<oci::Platform>,
    #[command(flatten)]
    pub registry: Registry,
    #[command(flatten)]
    pub progress: Progress,
    #[command(flatten)]
    pub format: FormatArg,
}
