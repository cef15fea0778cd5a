//! Runs `nft`. The one place that starts a program.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::{Elements, absence, addition, families, first, probe, removal, ruleset};
use crate::error::{Error, Result};

/// The table of one stack.
#[derive(Debug, Clone)]
pub struct Firewall {
    table: String,
}

impl Firewall {
    /// The table with this name in the network namespace of the caller.
    #[must_use]
    pub fn new(table: &str) -> Self {
        Self { table: table.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_there(&self) -> Result<bool> {
        probe::table_exists("inet", &self.table)
            .map_err(Error::kernel(format!("look for nftables table {}", self.table)))
    }

    /// Replaces the table.
    ///
    /// # Errors
    /// [`Error::Nft`], [`Error::NftMissing`]; the old table stays then.
    pub fn rebuild(&self, elements: &Elements) -> Result<()> {
        let stale = self.stale(&families(elements))?;
        if elements.host_first() {
            first::make_links(&self.table).map_err(Error::kernel("make the links of host-first publishing"))?;
        }
        self.run(&ruleset(&self.table, elements, &stale))?;
        if stale.contains(&"ip") { self.remove_links() } else { Ok(()) }
    }

    /// Families of tables that are there, other than inet and the wanted ones.
    fn stale(&self, wanted: &[&str]) -> Result<Vec<&'static str>> {
        let step = || Error::kernel(format!("look for nftables tables {}", self.table));
        let mut stale = Vec::new();
        for family in ["ip", "ip6", "bridge"] {
            if !wanted.contains(&family) && probe::table_exists(family, &self.table).map_err(step())? {
                stale.push(family);
            }
        }
        Ok(stale)
    }

    fn remove_links(&self) -> Result<()> {
        first::remove_links(&self.table).map_err(Error::kernel("remove the links of host-first publishing"))
    }

    /// Adds elements.
    ///
    /// # Errors
    /// As [`Firewall::rebuild`].
    pub fn add(&self, elements: &Elements) -> Result<()> {
        self.run(&addition(&self.table, elements))
    }

    /// Takes elements out and puts others in, in one transaction.
    ///
    /// # Errors
    /// As [`Firewall::rebuild`].
    pub fn replace(&self, out: &Elements, new: &Elements) -> Result<()> {
        self.run(&(removal(&self.table, out) + &addition(&self.table, new)))
    }

    /// Takes the table away.
    ///
    /// # Errors
    /// As [`Firewall::rebuild`].
    pub fn clear(&self) -> Result<()> {
        let mut there = self.stale(&[])?;
        if self.is_there()? {
            there.push("inet");
        }
        self.run(&absence(&self.table, &there))?;
        self.remove_links()
    }

    fn run(&self, script: &str) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        let step = || Error::kernel("run nft");
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::NftMissing,
                _ => step()(error),
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A broken pipe means that nft gave up; what it says is on stderr.
            let _ = stdin.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().map_err(step())?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.lines().take(4).collect::<Vec<_>>().join("; ");
        Err(Error::Nft { table: self.table.clone(), message })
    }
}
