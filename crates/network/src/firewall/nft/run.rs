//! Applies changes: few elements over netlink, the rest by running `nft`.

use super::{Elements, addition, families, inspect, probe, removal, ruleset, wire};
use crate::error::{Error, Result};
use crate::firewall::{pair, program};

/// Up to so many elements go over netlink; a message is no larger than what any kernel lets a socket send.
const FEW: usize = 512;

/// The tables of one stack.
pub(in crate::firewall) struct Nft {
    table: String,
}

impl Nft {
    /// The tables with this name in the network namespace of the caller.
    pub(in crate::firewall) fn new(table: &str) -> Self {
        Self { table: table.to_owned() }
    }

    /// Whether the table of family inet is there.
    pub(in crate::firewall) fn is_there(&self) -> Result<bool> {
        probe::table_exists("inet", &self.table)
            .map_err(Error::kernel(format!("look for nftables table {}", self.table)))
    }

    /// How the tables differ from what they should have, one line each.
    pub(in crate::firewall) fn missing(&self, elements: &Elements) -> Result<Vec<String>> {
        if !self.is_there()? {
            return Ok(vec!["the firewall table is gone".to_owned()]);
        }
        inspect::differences(&self.table, elements)
            .map_err(Error::kernel(format!("look at nftables table {}", self.table)))
    }

    /// Replaces the tables; the old ones stay when that fails.
    pub(in crate::firewall) fn rebuild(&self, elements: &Elements) -> Result<()> {
        let stale = self.stale(&families(elements))?;
        if elements.host_first() {
            pair::make_links(&self.table).map_err(Error::kernel("make the links of host-first publishing"))?;
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
        pair::remove_links(&self.table).map_err(Error::kernel("remove the links of host-first publishing"))
    }

    /// Takes elements out and puts others in, in one transaction.
    pub(in crate::firewall) fn replace(&self, out: &Elements, new: &Elements) -> Result<()> {
        let host_first = new.has_names() && probe::table_exists("ip", &self.table).unwrap_or(false);
        let new = &new.copied(host_first);
        match out.len() + new.len() {
            0 => Ok(()),
            1..=FEW => {
                wire::change(&self.table, out, new).map_err(|error| self.refused(format!("change elements: {error}")))
            }
            _ => self.run(&(removal(&self.table, out) + &addition(&self.table, new))),
        }
    }

    /// Takes the tables away. Needs no nft: it may have been removed.
    pub(in crate::firewall) fn clear(&self) -> Result<()> {
        let mut there = self.stale(&[])?;
        if self.is_there()? {
            there.push("inet");
        }
        wire::remove_tables(&self.table, &there).map_err(|error| self.refused(format!("remove tables: {error}")))?;
        self.remove_links()
    }

    fn refused(&self, message: String) -> Error {
        Error::Firewall { backend: self.backend(), message }
    }

    fn backend(&self) -> String {
        format!("nf_tables, table {}", self.table)
    }

    fn run(&self, script: &str) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        program::run("nft", &["-f", "-"], script, &self.backend()).map(drop)
    }
}
