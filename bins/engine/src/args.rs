//! The command line of `pierd`.
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

/// The container engine of Pier: composes the tools, passes their own services through.
///
/// Containers, and the tools that it starts, outlive it.
#[derive(Debug, Parser)]
#[command(name = "pierd", version)]
pub struct Args {
    #[command(flatten)]
    pub globals: console::Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve the engine until SIGTERM; SIGHUP reads the configuration again
    Serve(Serve),
    #[command(flatten)]
    Generate(console::Generate),
}

#[derive(Clone, Debug, ClapArgs)]
pub struct Serve {
    #[command(flatten)]
    pub door: rpc::Door,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Never start a tool; something else sees to them
    #[arg(long)]
    pub no_spawn: bool,
    /// A name for an OCI runtime binary; may be given again
    #[arg(long = "runtime", value_name = "NAME=PATH")]
    pub runtimes: Vec<String>,
}
