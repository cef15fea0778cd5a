//! A namespace of an unprivileged user: no link of the host can be made for it, so a program of that user carries its
//! packets through ordinary sockets. pasta where it is installed, since it keeps source addresses; else slirp4netns.
//!
//! One process for each endpoint, whose pid stands in `<run>/network/rootless/<endpoint>.pid`. It binds the published
//! ports itself, and ends with the namespace.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, PortMapping, Protocol};
use crate::ports;

const PASTA: &str = "pasta";
const SLIRP: &str = "slirp4netns";
/// The address that slirp4netns gives.
const SLIRP_ADDRESS: &str = "10.0.2.100";
/// What both give when nothing else is asked for, in bytes.
const MTU: u32 = 65520;

/// The program that is found, by name.
///
/// # Errors
/// [`Error::Invalid`] when there is none.
pub(super) fn program() -> Result<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let why = "neither pasta nor slirp4netns is installed: install the package passt";
    [PASTA, SLIRP].into_iter().find(there).ok_or_else(|| Error::invalid("driver \"rootless\"", why))
}

pub(super) fn attach(config: &Config, network: &Network, endpoint: &Endpoint, limit: Duration) -> Result<Endpoint> {
    let program = program()?;
    if let Some(port) = endpoint.ports.iter().find(|port| port.protocol == Protocol::Sctp) {
        return Err(Error::invalid(format!("port {port}"), "no SCTP passes through ordinary sockets"));
    }
    // Says who has a port, and what to do about low ones, where the program only says no.
    endpoint.ports.iter().try_for_each(|port| ports::free_on_host(port, None))?;
    let files = Files::of(config, endpoint);
    let dir = files.pid.parent().unwrap_or(&config.run);
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let mtu = endpoint.mtu.or(network.mtu()).unwrap_or(MTU);
    let started = match program {
        PASTA => pasta(endpoint, &files, mtu),
        _ => slirp(endpoint, &files, mtu, limit),
    };
    let failed = |why: io::Error| Error::Foreign { driver: program.into(), step: "start".into(), why: why.to_string() };
    started.map_err(failed)?;
    Ok(endpoint.clone())
}

pub(super) fn detach(config: &Config, endpoint: &Endpoint) -> Result<()> {
    let files = Files::of(config, endpoint);
    let Ok(text) = fs::read_to_string(&files.pid) else { return Ok(()) };
    let pid = text.trim().parse::<i32>().ok().filter(|pid| is_ours(*pid, &files));
    if let Some(pid) = pid {
        stop(pid).map_err(Error::kernel(format!("stop process {pid}")))?;
    }
    let _ = fs::remove_file(&files.api);
    fs::remove_file(&files.pid).map_err(Error::io(&files.pid))
}

/// Files of one endpoint.
struct Files {
    pid: PathBuf,
    api: PathBuf,
}

impl Files {
    fn of(config: &Config, endpoint: &Endpoint) -> Self {
        let file = |extension: &str| {
            let short = endpoint.id.get(..12).unwrap_or(&endpoint.id);
            config.run.join("rootless").join(format!("{short}.{extension}"))
        };
        Self { pid: file("pid"), api: file("sock") }
    }
}

/// The pid is not another process's by now: its command line names a file of the endpoint.
fn is_ours(pid: i32, files: &Files) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let names = |file: &Path| line.split(|byte| *byte == 0).any(|word| word == file.as_os_str().as_encoded_bytes());
    names(&files.pid) || names(&files.api)
}

fn stop(pid: i32) -> io::Result<()> {
    let Some(process) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        match rustix::process::kill_process(process, rustix::process::Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            result => result?,
        }
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z')) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(rustix::process::kill_process(process, rustix::process::Signal::KILL)?)
}

/// The user namespace that goes with `/proc/<pid>/ns/net`, unless it is the caller's own.
fn user_namespace(netns: &Path) -> Option<PathBuf> {
    let path = netns.parent()?.join("user");
    let inode = |path: &Path| fs::metadata(path).map(|data| data.ino()).ok();
    let own = inode(Path::new("/proc/self/ns/user"));
    inode(&path).filter(|theirs| Some(*theirs) != own).map(|_| path)
}

/// It goes to the background by itself once all is set.
fn pasta(endpoint: &Endpoint, files: &Files, mtu: u32) -> io::Result<()> {
    let mut command = Command::new(PASTA);
    command.args(["--config-net", "--no-map-gw", "--quiet", "-T", "none", "-U", "none", "-I", &endpoint.interface]);
    command.arg("-m").arg(mtu.to_string()).arg("-P").arg(&files.pid);
    for (flag, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let mut ports = endpoint.ports.iter().filter(|port| port.protocol == protocol).peekable();
        if ports.peek().is_none() {
            command.args([flag, "none"]);
        }
        ports.for_each(|port| {
            command.args([flag, &specification(port)]);
        });
    }
    if rustix::process::geteuid().is_root() {
        command.args(["--runas", "0:0"]);
    }
    match user_namespace(&endpoint.netns_path) {
        Some(path) => command.arg("--userns").arg(path),
        None => command.arg("--netns-only"),
    };
    let output = command.arg("--netns").arg(&endpoint.netns_path).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rfind(|line| !line.contains("syslog")).unwrap_or("it says nothing").to_owned();
    Err(io::Error::other(line))
}

/// `[ADDRESS/]HOST[-LAST]:PORT[-LAST]`.
fn specification(port: &PortMapping) -> String {
    let address = port.host_ip.map(|ip| format!("{ip}/")).unwrap_or_default();
    let span = |first: u16| match port.range {
        0 | 1 => first.to_string(),
        range => format!("{first}-{}", first.saturating_add(range - 1)),
    };
    format!("{address}{}:{}", span(port.host_port), span(port.container_port))
}

/// It stays where it is started, in a session of its own; ports are added over its socket.
fn slirp(endpoint: &Endpoint, files: &Files, mtu: u32, limit: Duration) -> io::Result<()> {
    let mut command = Command::new(SLIRP);
    command.args(["--configure", "--disable-host-loopback", "--netns-type=path"]).arg(format!("--mtu={mtu}"));
    command.arg("--api-socket").arg(&files.api);
    if let Some(path) = user_namespace(&endpoint.netns_path) {
        command.arg(format!("--userns-path={}", path.display()));
    }
    command.arg(&endpoint.netns_path).arg(&endpoint.interface);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    fs::write(&files.pid, child.id().to_string())?;
    let end = Instant::now() + limit;
    while UnixStream::connect(&files.api).is_err() {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if Instant::now() > end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it is not ready in time"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let singles = endpoint.ports.iter().flat_map(|port| (0..port.range.max(1)).map(move |step| (port, step)));
    singles.into_iter().try_for_each(|(port, step)| add_forward(&files.api, port, step))
}

fn add_forward(api: &Path, port: &PortMapping, step: u16) -> io::Result<()> {
    let mut stream = UnixStream::connect(api)?;
    let host = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
    let request = json!({ "execute": "add_hostfwd", "arguments": {
        "proto": port.protocol.to_string(), "host_addr": host, "host_port": port.host_port + step,
        "guest_addr": SLIRP_ADDRESS, "guest_port": port.container_port + step,
    }});
    stream.write_all(request.to_string().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
    match answer["error"]["desc"].as_str() {
        Some(why) => Err(io::Error::other(format!("port {port}: {why}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_written_as_pasta_reads_them() {
        for (text, wanted) in
            [("8080:80", "8080:80"), ("127.0.0.1:8080:80", "127.0.0.1/8080:80"), ("8000-8002:80-82", "8000-8002:80-82")]
        {
            assert_eq!(specification(&text.parse().unwrap()), wanted);
        }
    }
}
