//! What tests of names and of the firewall share: namespaces that only they made, a neighbour, a recording upstream.
use anyhow::{Context, ensure};
use integration::{Bed, Daemon, Outcome, Result, eventually};
use std::time::Duration;

/// A network namespace kept by a sleeping process.
pub struct Place {
    pub path: String,
    keeper: Daemon,
}

impl Place {
    pub fn new(bed: &Bed, name: &str) -> Result<Self> {
        let keeper = bed.spawn(name, bed.command("unshare").args(["--net", "sleep", "1000"]))?;
        let path = format!("/proc/{}/ns/net", keeper.pid());
        let own = std::fs::read_link("/proc/self/ns/net")?;
        eventually(Duration::from_secs(5), || {
            ensure!(std::fs::read_link(&path)? != own, "{name} is not unshared yet");
            Ok(())
        })?;
        let place = Self { path, keeper };
        place.sh(bed, "ip link set lo up")?.ok()?;
        Ok(place)
    }

    /// Attached to a network under this name.
    pub fn on(bed: &Bed, network: &str, name: &str, more: &str) -> Result<Self> {
        let place = Self::new(bed, name)?;
        place.attach(bed, network, name, more)?;
        Ok(place)
    }

    /// Gives the addresses.
    pub fn attach(&self, bed: &Bed, network: &str, owner: &str, more: &str) -> Result<Vec<String>> {
        let line = format!("attach {network} {} --owner {owner} {more}", self.path);
        let endpoint = pier(bed, &line)?.ok()?.json()?;
        let addresses = endpoint["addresses"].as_array().context("addresses")?;
        let bare = |address: &serde_json::Value| address.as_str().and_then(|a| a.split('/').next()).map(String::from);
        Ok(addresses.iter().filter_map(bare).collect())
    }

    pub fn pid(&self) -> u32 {
        self.keeper.pid()
    }

    /// Ends the process that keeps it.
    pub fn end(&self) -> Result {
        self.keeper.kill()
    }

    pub fn sh(&self, bed: &Bed, script: &str) -> Result<Outcome> {
        bed.exec("nsenter", &[format!("--net={}", self.path).as_str(), "sh", "-c", script])
    }

    /// Starts a command in it.
    pub fn spawn(&self, bed: &Bed, name: &str, script: &str) -> Result<Daemon> {
        let mut command = bed.command("nsenter");
        bed.spawn(name, command.arg(format!("--net={}", self.path)).args(["sh", "-c", script]))
    }

    /// Answers "hello NAME" on a TCP port of both families.
    pub fn answer(&self, bed: &Bed, name: &str, port: u16) -> Result {
        let listen = format!("exec socat TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0 SYSTEM:'echo hello {name}'");
        self.spawn(bed, &format!("tcp-{name}"), &listen)?;
        eventually(Duration::from_secs(5), || self.ask(bed, &format!("127.0.0.1:{port}"))?.ok()?.has("hello"))
    }

    /// What a TCP server says to it.
    pub fn ask(&self, bed: &Bed, address: &str) -> Result<Outcome> {
        self.sh(bed, &tcp(address))
    }

    /// A name looked up at a server.
    pub fn look(&self, bed: &Bed, server: &str, name: &str, kind: &str) -> Result<Outcome> {
        // An address alone is looked up backwards.
        let kind = if kind == "ptr" { String::new() } else { format!("-type={kind}") };
        self.sh(bed, &format!("timeout 6 busybox nslookup {kind} {name} {server}"))
    }
}

pub fn tcp(address: &str) -> String {
    format!("timeout 2 socat -T2 - TCP:{address},connect-timeout=1 </dev/null")
}

pub fn pier(bed: &Bed, line: &str) -> Result<Outcome> {
    bed.sh(&format!("pier-network {line}"))
}

/// The bed as a host with a neighbour: 198.51.100.1 and 2001:db8::1 here, .2 there.
pub fn outside(bed: &Bed) -> Result<Place> {
    let there = Place::new(bed, "outside")?;
    let link = format!(
        "ip link add up0 type veth peer name up0 netns {} && ip addr add 198.51.100.1/24 dev up0 && \
         ip -6 addr add 2001:db8::1/64 dev up0 nodad && ip link set up0 up",
        there.pid()
    );
    bed.sh(&link)?.ok()?;
    let address =
        "ip addr add 198.51.100.2/24 dev up0; ip -6 addr add 2001:db8::2/64 dev up0 nodad; ip link set up0 up";
    there.sh(bed, address)?.ok()?;
    Ok(there)
}

pub fn remove_outside(bed: &Bed) -> Result {
    bed.sh("ip link del up0")?.ok().map(drop)
}

/// An upstream name server at this address of the host: every A is 192.0.2.`last`, unless the name says otherwise
/// (see the script). Every name it is asked for is a line of `<address>.log`.
pub fn upstream(bed: &Bed, address: &str, last: u8) -> Result<Daemon> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/names.py");
    let daemon = bed.spawn(address, bed.command("python3").args([script, "serve", address, &last.to_string()]))?;
    eventually(Duration::from_secs(5), || bed.log(address).contains("ready").then_some(()).context("not ready"))?;
    Ok(daemon)
}

/// The script that asks and answers DNS.
pub const NAMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/names.py");

/// The script that knocks at addresses.
pub const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/probe.py");
