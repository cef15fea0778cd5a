//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Builds images from Dockerfiles.
///
/// Every verb works without a daemon; `serve` offers the same as pier.builder.v1 on a socket. Images are kept by
/// pier-distribution: its socket is used when it answers, else it is started for the one verb.
#[derive(Debug, Parser)]
#[command(name = "pier-builder", version)]
pub struct Cli {
    #[command(flatten)]
    pub globals: console::Globals,
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Settings of the builder itself.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// OCI runtime for RUN: a program with runc's command line [default: pier-runtime beside this program or on PATH]
    #[arg(long, global = true, help_heading = console::GLOBAL, env = "PIER_BUILDER_RUNTIME", value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// Steps that run at once [default: twice the processors, at least four]
    #[arg(long, global = true, help_heading = console::GLOBAL, value_name = "N")]
    pub parallelism: Option<usize>,
    /// What the cache may hold after a build, such as 10GB; 0: no limit
    #[arg(long, global = true, help_heading = console::GLOBAL, value_name = "SIZE", default_value = "20GB")]
    pub cache_limit: String,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build an image and print its id
    Build(Box<Build>),
    /// List what the cache holds
    Du {
        #[arg(long, value_enum, default_value_t)]
        format: console::Format,
    },
    /// Forget cached results, so that their layers can go
    Prune {
        /// Also the contents of `RUN --mount=type=cache`
        #[arg(short, long)]
        all: bool,
        /// Keep what was used in the last so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        keep_seconds: i64,
        /// Keep the most recently used up to this size
        #[arg(long, value_name = "SIZE", default_value = "0")]
        keep_bytes: String,
    },
    /// Look inside
    #[command(subcommand)]
    Debug(Debug),
    /// Serve pier.builder.v1 until SIGTERM
    Serve(rpc::Door),
    #[command(flatten)]
    Generate(console::Generate),
}

#[derive(Debug, Subcommand)]
pub enum Debug {
    /// Print the graph that a build would solve, as JSON
    DumpLlb(Box<Build>),
}

#[derive(Debug, Args)]
pub struct Build {
    /// Directory with the files to build from; "-": none, and the Dockerfile comes from standard input
    #[arg(default_value = ".")]
    pub context: String,
    /// The Dockerfile; "-": standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<String>,
    /// A name for the image
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Stage to build
    #[arg(long, default_value = "", hide_default_value = true)]
    pub target: String,
    /// Value of an ARG; without a value: that of the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub build_args: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// A directory or docker-image:// that FROM and --from can name
    #[arg(long = "build-context", value_name = "NAME=PATH")]
    pub build_contexts: Vec<String>,
    /// Run every step
    #[arg(long)]
    pub no_cache: bool,
    /// Ask registries for newer base images
    #[arg(long)]
    pub pull: bool,
    /// type=image|oci-archive|docker-archive|oci-dir|local|tar[,dest=PATH][,push=true]
    #[arg(short, long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,
    /// Push the image to the registry of its names
    #[arg(long)]
    pub push: bool,
    /// Network of RUN
    #[arg(long, default_value = "default", value_name = "default|host|none")]
    pub network: String,
    /// os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Compression of new layers: gzip, zstd, plain
    #[arg(long, default_value = "gzip")]
    pub compression: String,
    /// Memory limit of RUN, such as 512m
    #[arg(short, long, value_name = "SIZE", default_value = "0", hide_default_value = true)]
    pub memory: String,
    /// A line for /etc/hosts of RUN
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub add_hosts: Vec<String>,
    /// Write the image's id here
    #[arg(long, value_name = "PATH")]
    pub iidfile: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
    /// Print nothing but the id
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// tty on a terminal, else plain
    #[default]
    Auto,
    /// Lines
    Plain,
    /// One line per step, redrawn
    Tty,
    /// One JSON object per line
    Json,
}
