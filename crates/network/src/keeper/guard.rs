//! What holds when the firewall's own table is gone: a second table that only its owner can remove.
//!
//! Between somebody's `nft flush ruleset` and the next writing of the table nothing else would keep a neighbour of
//! the host from the endpoints' addresses, or a container from what listens on the host's 127.0.0.1 (bridges route
//! there for published ports). So the guard repeats what the table denies. And it has empty chains of type nat:
//! without any the kernel would stop translating the packets of established connections. Its table has the flag `owner` (nft(8),
//! Linux 5.12): a flush passes it by, and it goes with the process that made it, an `nft -i` the keeper holds.
//! On an older kernel there is none, and a flush opens what it opens until the table is back, some milliseconds later.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use crate::firewall::Elements;

/// The guard of one stack.
pub(crate) struct Guard {
    table: String,
    running: Option<(Child, ChildStdin)>,
    holds: Elements,
    /// There is no nft, or it refuses.
    hopeless: bool,
}

impl Guard {
    /// Not there yet.
    pub(crate) fn new(table: &str) -> Self {
        Self { table: format!("{table}_guard"), running: None, holds: Elements::default(), hopeless: false }
    }

    /// Guards these bridges from now on; none: is taken away.
    pub(crate) async fn set(&mut self, wanted: &Elements) -> io::Result<()> {
        if self.hopeless || (*wanted == self.holds && self.running.is_some() != wanted.is_empty()) {
            return Ok(());
        }
        if wanted.is_empty() {
            self.running = None;
            self.holds = Elements::default();
            return Ok(());
        }
        let mut script = String::new();
        if self.running.is_none() {
            self.running = Some(start().inspect_err(|_| self.hopeless = true)?);
            script = rules(&self.table);
        }
        for set in ["bridges", "same", "open"] {
            script += &format!("flush set inet {} {set} ; ", self.table);
        }
        script += &wanted.change(&self.table, "add").replace('\n', " ; ");
        script.push('\n');
        self.holds = wanted.clone();
        match &mut self.running {
            Some((_, stdin)) => stdin.write_all(script.as_bytes()).await,
            None => Ok(()),
        }
    }

    /// Takes it away, and returns when its table is gone.
    pub(crate) async fn end(&mut self) {
        self.holds = Elements::default();
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            let _ = child.kill().await;
        }
    }

    /// Waits until it ended by itself.
    pub(crate) async fn gone(&mut self) {
        match &mut self.running {
            Some((child, _)) => drop(child.wait().await),
            None => std::future::pending().await,
        }
        self.running = None;
    }
}

fn start() -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, stdin))
}

/// One line, so that `nft -i` takes it as one transaction.
fn rules(table: &str) -> String {
    let parts = [
        format!("add table inet {table} {{ flags owner ; }}"),
        format!("add set inet {table} bridges {{ type ifname ; }}"),
        format!("add set inet {table} open {{ type ifname ; }}"),
        format!("add set inet {table} same {{ type ifname . ifname ; }}"),
        format!("add chain inet {table} localhost {{ type filter hook prerouting priority -301 ; }}"),
        format!("add rule inet {table} localhost ip daddr 127.0.0.0/8 iifname @bridges drop"),
        format!("add chain inet {table} forward {{ type filter hook forward priority -1 ; }}"),
        format!("add rule inet {table} forward ct state established,related accept"),
        format!("add rule inet {table} forward oifname != @bridges accept"),
        format!("add rule inet {table} forward iifname . oifname @same accept"),
        format!("add rule inet {table} forward meta sdifname . oifname @same accept"),
        format!("add rule inet {table} forward ct status dnat accept"),
        format!("add rule inet {table} forward iifname @open oifname @open accept"),
        format!("add rule inet {table} forward meta sdifname @open oifname @open accept"),
        format!("add rule inet {table} forward drop"),
        format!("add chain inet {table} nat_in {{ type nat hook prerouting priority -100 ; }}"),
        format!("add chain inet {table} nat_own {{ type nat hook output priority -100 ; }}"),
        format!("add chain inet {table} nat_out {{ type nat hook postrouting priority 100 ; }}"),
    ];
    parts.join(" ; ") + " ; "
}
