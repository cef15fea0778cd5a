//! The firewall: what is denied between networks, what is published, what is masqueraded.
//!
//! What a network or an endpoint needs are *elements* of sets and maps ([`Elements`]), so that an attach without
//! published ports adds nothing at all and one with a range of a thousand ports adds one element.
//!
//! A published port is reached from outside, from the host's own addresses and from 127.0.0.1, by other endpoints and
//! by the endpoint itself, in each family that the endpoint has an address of. Not by ::1: the kernel has no
//! route_localnet for IPv6; there the connection is refused at once, so that clients go on to 127.0.0.1. Nor at port
//! 53 of the gateways: there containers ask for names, whoever publishes that port on all addresses.
//!
//! Two backends bring them into the kernel: [`nft`], and [`iptables`] where nft is missing.

mod backend;
pub mod conntrack;
mod element;
mod elements;
mod iptables;
mod nft;
mod pair;
mod program;
mod socket;
mod watch;

use std::path::Path;

use crate::error::Result;

pub use backend::Backend;
pub use elements::Elements;
pub use iptables::Variant;
pub use nft::probe;
pub(crate) use watch::Watch;

use backend::Record;
use iptables::Iptables;
use nft::Nft;

/// The rules of one stack.
#[derive(Debug, Clone)]
pub struct Firewall {
    table: String,
    /// Absent: the one in use, else what the host has.
    choice: Option<Backend>,
    record: Record,
}

impl Firewall {
    /// In the network namespace of the caller: tables, or chains, of this name. `run` is the run directory.
    #[must_use]
    pub fn new(table: &str, choice: Option<Backend>, run: &Path) -> Self {
        Self { table: table.to_owned(), choice, record: Record::at(&run.join("firewall")) }
    }

    /// Name of the tables.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The backend: the chosen one, else the one in use, else what the host has.
    ///
    /// # Errors
    /// [`crate::Error::NoFirewall`].
    pub fn backend(&self) -> Result<Backend> {
        match self.choice.or_else(|| self.record.read().first().copied()) {
            Some(backend) => Ok(backend),
            None => Backend::found(),
        }
    }

    /// Makes the chosen backend the stack's, and takes away what another has. The caller holds the stack's lock.
    ///
    /// # Errors
    /// What the other backend refuses.
    pub fn settle(&self) -> Result<Backend> {
        let chosen = self.backend()?;
        let kinds = chosen.kinds();
        let mut others = self.record.read();
        if others == [chosen] && kinds == self.record.kinds() {
            return Ok(chosen);
        }
        if others.is_empty() && chosen != Backend::Nft && self.nft().is_there().unwrap_or(false) {
            // A version that knew one backend only wrote no record.
            others.push(Backend::Nft);
        }
        others.retain(|other| *other != chosen);
        others.extend(self.left_behind(&kinds));
        // Whoever dies here leaves a word that says what has still to go.
        let words: Vec<Backend> = std::iter::once(chosen).chain(others.iter().copied()).collect();
        self.record.write(&words, &[])?;
        for other in others {
            self.clear_of(other)?;
        }
        self.record.write(&[chosen], &kinds)?;
        Ok(chosen)
    }

    /// Whether elements can be added to what is there; else all is written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn takes_elements(&self) -> Result<bool> {
        let nft = self.backend().is_ok_and(|backend| backend == Backend::Nft);
        Ok(nft && self.record.read().iter().all(|used| *used == Backend::Nft) && self.nft().is_there()?)
    }

    /// How the rules differ from these elements, one line each.
    ///
    /// # Errors
    /// The kernel's, or a program's.
    pub fn missing(&self, elements: &Elements) -> Result<Vec<String>> {
        if elements.is_empty() {
            return Ok(Vec::new());
        }
        match self.backend()? {
            Backend::Nft => self.nft().missing(elements),
            Backend::Iptables(variant) => self.iptables(variant).missing(elements),
        }
    }

    /// Writes all rules in place of those before.
    ///
    /// # Errors
    /// [`crate::Error::Firewall`]; the old rules stay then. [`crate::Error::FirewallLacks`].
    pub fn rebuild(&self, elements: &Elements) -> Result<()> {
        match self.settle()? {
            Backend::Nft => self.nft().rebuild(elements),
            Backend::Iptables(variant) => self.iptables(variant).rebuild(elements),
        }
    }

    /// Takes elements out and puts others in, in one transaction. Only where [`Firewall::takes_elements`].
    ///
    /// # Errors
    /// As [`Firewall::rebuild`].
    pub fn replace(&self, out: &Elements, new: &Elements) -> Result<()> {
        self.nft().replace(out, new)
    }

    /// What the backend cannot do on this host, and what helps, one line each.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        match self.backend() {
            Ok(Backend::Iptables(_)) => iptables::lacks().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes all rules away.
    ///
    /// # Errors
    /// As [`Firewall::rebuild`].
    pub fn clear(&self) -> Result<()> {
        let mut there = self.record.read();
        if there.is_empty() {
            // Of a version that wrote no record.
            there.push(Backend::Nft);
        }
        let now: Vec<Backend> = there.iter().flat_map(|backend| backend.kinds()).collect();
        there.extend(self.left_behind(&now));
        for backend in there {
            self.clear_of(backend)?;
        }
        self.record.remove();
        Ok(())
    }

    /// Where rules are that were written when the host's iptables was not what it is now.
    fn left_behind(&self, now: &[Backend]) -> Vec<Backend> {
        let mut kinds = self.record.kinds();
        if kinds == now {
            return Vec::new();
        }
        kinds.dedup();
        kinds
    }

    fn clear_of(&self, backend: Backend) -> Result<()> {
        match backend {
            Backend::Nft => self.nft().clear(),
            Backend::Iptables(variant) => self.iptables(variant).clear(),
        }
    }

    fn nft(&self) -> Nft {
        Nft::new(&self.table)
    }

    fn iptables(&self, variant: Variant) -> Iptables {
        Iptables::new(&self.table, variant)
    }
}
