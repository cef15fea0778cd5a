//! The command line of `pierd`.
use anyhow::Context;
use clap::{Args as ClapArgs, Parser, Subcommand};
use rpc::{Listen, TlsFiles};
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
    /// Where to listen: unix:///PATH, fd:// (socket activation) or tcp://ADDRESS:PORT (mutual TLS) [default: <run>/pier.sock]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// Group (name or number) that may use the socket too
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Never start a tool; something else sees to them
    #[arg(long)]
    pub no_spawn: bool,
    /// A name for an OCI runtime binary; may be given again
    #[arg(long = "runtime", value_name = "NAME=PATH")]
    pub runtimes: Vec<String>,
    /// Certificate chain, for TCP
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// Private key, for TCP
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority that clients' certificates come from, for TCP
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
}

impl Serve {
    /// The group's number.
    pub fn group(&self) -> anyhow::Result<Option<u32>> {
        let Some(name) = &self.group else { return Ok(None) };
        if let Ok(gid) = name.parse() {
            return Ok(Some(gid));
        }
        let groups = std::fs::read_to_string("/etc/group").context("read /etc/group")?;
        let found = groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
        });
        found.map(Some).with_context(|| format!("there is no group {name:?}"))
    }

    /// Files for TCP.
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles { cert: self.tls_cert.clone()?, key: self.tls_key.clone()?, client_ca: self.tls_ca.clone()? })
    }
}
