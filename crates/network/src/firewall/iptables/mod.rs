//! The firewall as iptables: chains of our own in the tables raw, nat and filter, for hosts without nft.
//!
//! All chains are written anew with each change, by `iptables-restore --noflush`: one transaction for each table, no
//! chain of others is touched. Where nft has sets, here are rules, one for each element.
//!
//! | chain | called from |
//! |---|---|
//! | `<NAME>-GUARD` | raw PREROUTING, first |
//! | `<NAME>-PUBLISH` | nat PREROUTING and OUTPUT, first, for addresses of the host |
//! | `<NAME>-MASQ` | nat POSTROUTING, first |
//! | `<NAME>-DENY` | filter FORWARD, first: it only denies |
//! | `<NAME>-ALLOW` | filter FORWARD, last: the host's own rules have come before, only the chain's policy is left |
//!
//! What nft can do and this cannot: publish host-first ([`Error::FirewallLacks`]); policies on one bridge, unless its
//! packets pass iptables (`net.bridge.bridge-nf-call-iptables=1`); hold the doors shut in the moments between somebody's
//! flush and the next writing.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

mod policies;
mod rules;
mod script;

use super::Elements;
use crate::error::{Error, Result};
use crate::kernel::read_sysctl;
use rules::Family;

/// Seconds that a program waits while another one holds iptables' lock.
const PATIENCE: &str = "5";

/// Which of a host's iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// What the host calls `iptables`.
    AsInstalled,
    /// `iptables-nft`: rules in nf_tables.
    Nft,
    /// `iptables-legacy`: rules in the kernel's own tables.
    Legacy,
}

impl Variant {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::AsInstalled => "",
            Self::Nft => "-nft",
            Self::Legacy => "-legacy",
        }
    }

    /// Whether its rules lie in the kernel's own tables, whose changes nobody is told of.
    pub(super) fn is_legacy(self) -> bool {
        match self {
            Self::Legacy => true,
            Self::Nft => false,
            Self::AsInstalled => Command::new("iptables")
                .arg("-V")
                .stderr(Stdio::null())
                .output()
                .is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("legacy")),
        }
    }
}

/// The chains of one stack.
pub(super) struct Iptables {
    name: String,
    variant: Variant,
}

impl Iptables {
    pub(super) fn new(table: &str, variant: Variant) -> Self {
        Self { name: table.to_uppercase(), variant }
    }

    pub(super) fn missing(&self, elements: &Elements) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        for family in self.families(elements) {
            let wanted = rules::tables(&self.name, elements, family);
            differences.extend(script::differences(&self.save(family)?, &wanted, family));
        }
        Ok(differences)
    }

    pub(super) fn rebuild(&self, elements: &Elements) -> Result<()> {
        self.can(elements)?;
        for family in self.families(elements) {
            let wanted = rules::tables(&self.name, elements, family);
            self.restore(family, &script::write(&self.save(family)?, &self.name, &wanted))?;
        }
        Ok(())
    }

    pub(super) fn clear(&self) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            // A host without IPv6 has no tables of it, and one whose program is gone has nobody to ask.
            let Ok(saved) = self.save(family) else { continue };
            self.restore(family, &script::write(&saved, &self.name, &[]))?;
        }
        Ok(())
    }

    /// IPv6 is left out on a host that cannot filter it, unless it is needed.
    fn families(&self, elements: &Elements) -> Vec<Family> {
        let both = elements.has_ipv6() || self.save(Family::V6).is_ok();
        if both { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
    }

    /// Whether all of it can be said here.
    fn can(&self, elements: &Elements) -> Result<()> {
        let lacks =
            |what: &str| Err(Error::FirewallLacks { backend: self.program(Family::V4, ""), what: what.to_owned() });
        if elements.host_first() {
            return lacks("host-first publishing");
        }
        if elements.links().any(|link| link.ends_with('+')) {
            return lacks("links whose names end with +");
        }
        let passes = |key| read_sysctl(key).is_some_and(|value| value != "0");
        let bridged = passes("bridge/bridge-nf-call-iptables") && passes("bridge/bridge-nf-call-ip6tables");
        if !elements.compiled().is_empty() && !bridged {
            return lacks("policies while net.bridge.bridge-nf-call-iptables and -ip6tables are not 1");
        }
        Ok(())
    }

    fn program(&self, family: Family, verb: &str) -> String {
        let digit = if family == Family::V6 { "6" } else { "" };
        format!("ip{digit}tables{}{verb}", self.variant.suffix())
    }

    fn save(&self, family: Family) -> Result<String> {
        let program = self.program(family, "-save");
        let output = run(&program, &[], "")?;
        if !output.status.success() {
            return Err(refused(&program, &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn restore(&self, family: Family, script: &str) -> Result<()> {
        if script.is_empty() {
            return Ok(());
        }
        let program = self.program(family, "-restore");
        let output = run(&program, &["--noflush", "-w", PATIENCE], script)?;
        if output.status.success() { Ok(()) } else { Err(refused(&program, &output)) }
    }
}

fn run(program: &str, args: &[&str], input: &str) -> Result<Output> {
    let step = || Error::kernel(format!("run {program}"));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::FirewallMissing { program: program.to_owned() },
            _ => step()(error),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that it gave up; what it says is on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(step())
}

fn refused(program: &str, output: &Output) -> Error {
    let message = String::from_utf8_lossy(&output.stderr);
    let message = message.lines().take(4).collect::<Vec<_>>().join("; ");
    Error::Firewall { backend: program.to_owned(), message }
}
