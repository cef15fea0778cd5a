//! What can be seen from inside a namespace.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use sys::netns::Netns;

use super::{Findings, Verdict};
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, PortMapping, Protocol};
use crate::netlink::Netlink;

/// How long a look that needs an answer waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// A name server's, for names that an upstream has to be asked for.
const PATIENCE_UPSTREAM: Duration = Duration::from_secs(5);

pub(super) fn look(
    findings: &mut Findings,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    name: &str,
) -> Result<()> {
    let step = || Error::kernel("look into the network namespace");
    netns.within(|| look_here(findings, network, endpoint, name)).map_err(step())?.map_err(step())
}

fn look_here(findings: &mut Findings, network: &Network, endpoint: &Endpoint, name: &str) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let link = netlink.link(&endpoint.interface)?;
    let up = link.as_ref().is_some_and(|link| link.up);
    let again = "Detach and attach again, or `pier-network reconcile`.";
    findings.is("link", up, Verdict::Failed, format!("{} up", endpoint.interface), again);
    let Some(link) = link else { return Ok(()) };
    let has = netlink.addresses(link.index)?;
    for address in &endpoint.addresses {
        let there = has.iter().any(|other| other.addr() == address.addr());
        findings.is("address", there, Verdict::Failed, address.to_string(), again);
    }
    let routes = netlink.routes()?;
    for gateway in &endpoint.gateways {
        let default = routes.iter().any(|route| route.ipv6 == gateway.is_ipv6() && route.destination.is_none());
        findings.is("route", default, Verdict::Failed, format!("default route by {gateway}"), again);
    }
    if endpoint.gateways.is_empty() {
        let hint = "Internal networks have no way out; a second network's may be taken by the first.";
        findings.add("route", Verdict::Warning, "no default route by this network", hint);
    }
    for subnet in &network.subnets {
        reach(findings, subnet.gateway);
    }
    for server in network.name_servers() {
        names(findings, network, server, name);
    }
    for port in &endpoint.ports {
        listener(findings, port)?;
    }
    Ok(())
}

/// A refusal is an answer too.
fn reach(findings: &mut Findings, gateway: IpAddr) {
    let tried = TcpStream::connect_timeout(&SocketAddr::new(gateway, 53), PATIENCE);
    let answers = tried.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionRefused, |_| true);
    let hint = "Does the host's firewall accept what comes from the bridges (pier-*)?";
    findings.is("gateway", answers, Verdict::Failed, format!("{gateway} answers on 53/tcp"), hint);
}

fn names(findings: &mut Findings, network: &Network, server: IpAddr, name: &str) {
    let own = ask(server, "host.docker.internal.", RecordType::A, PATIENCE);
    let hint = "Is the keeper running (keeper.log in the run directory), and port 53 from the bridges accepted?";
    let detail = format!("{server} answers for names of the network: {}", said(&own));
    if !findings.is("resolver", matches!(own, Ok(ResponseCode::NoError)), Verdict::Failed, detail, hint) {
        return;
    }
    if name.is_empty() && network.internal {
        return findings.add("upstream", Verdict::Ok, "an internal network asks none", "");
    }
    // The root's servers: what every upstream knows.
    let (asked, kind) = if name.is_empty() { (".", RecordType::NS) } else { (name, RecordType::A) };
    let found = ask(server, asked, kind, PATIENCE_UPSTREAM);
    let hint = match found {
        Ok(ResponseCode::NXDomain) => "No endpoint of its networks and no upstream knows that name.",
        Ok(ResponseCode::Refused) => "An internal network's server forwards nothing.",
        _ => "Do the name servers of the host's resolv.conf, or of --dns, answer?",
    };
    let check = if name.is_empty() { "upstream" } else { "name" };
    let good = matches!(found, Ok(ResponseCode::NoError));
    findings.is(check, good, Verdict::Failed, format!("{asked} at {server}: {}", said(&found)), hint);
}

fn said(answer: &io::Result<ResponseCode>) -> String {
    answer.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

fn ask(server: IpAddr, name: &str, kind: RecordType, patience: Duration) -> io::Result<ResponseCode> {
    let invalid = |error| io::Error::new(ErrorKind::InvalidInput, error);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).map_err(invalid)?, kind));
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect((server, 53))?;
    socket.send(&message.to_vec().map_err(io::Error::other)?)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    let answer = Message::from_vec(buffer.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
    Ok(answer.metadata.response_code)
}

/// Whether something inside listens where the first port of a mapping leads.
fn listener(findings: &mut Findings, port: &PortMapping) -> io::Result<()> {
    let (files, state) = match port.protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
        Protocol::Sctp => return Ok(()),
    };
    let mut local = None;
    for file in files {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some((address, number)), Some(is)) = (words.get(1).and_then(|w| w.rsplit_once(':')), words.get(3))
            else {
                continue;
            };
            if u16::from_str_radix(number, 16).ok() == Some(port.container_port) && *is == state {
                // 127.0.0.1 or ::1, as proc(5) writes them.
                let loopback = address.ends_with("7F") && address.len() == 8
                    || address.ends_with("00000001000000")
                    || address == "00000000000000000000000001000000";
                local = Some(local.unwrap_or(true) && loopback);
            }
        }
    }
    let what = format!("{port}: ");
    match local {
        Some(false) => findings.add("port", Verdict::Ok, what + "something listens inside", ""),
        Some(true) => findings.add(
            "port",
            Verdict::Failed,
            what + "listens on loopback inside only",
            "Let the program listen on 0.0.0.0 or [::].",
        ),
        None => findings.add(
            "port",
            Verdict::Failed,
            what + "nobody listens inside",
            "Is the program running, and on that port?",
        ),
    }
    Ok(())
}
