//! Published ports, case by case: {IPv4, IPv6, both} × {TCP, UDP, SCTP} × {one, a range} × {no host address, one, any}.
use crate::network_place::{Place, outside, pier, remove_outside};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// Says which port was asked: TCP 80 to 82, UDP 53 to 55, both families.
fn servers(bed: &Bed, place: &Place) -> Result {
    for port in [80, 81, 82] {
        let listen = format!("exec socat TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0 SYSTEM:'echo port {port}'");
        place.spawn(bed, &format!("tcp{port}"), &listen)?;
    }
    for port in [53, 54, 55] {
        let listen = format!("exec socat UDP6-RECVFROM:{port},fork,ipv6only=0 SYSTEM:'read q; echo port {port}'");
        place.spawn(bed, &format!("udp{port}"), &listen)?;
    }
    eventually(Duration::from_secs(5), || {
        let sockets = place.sh(bed, "ss -Hlntu | wc -l")?.ok()?;
        ensure!(sockets.out() == "6", "{} of 6 sockets", sockets.out());
        Ok(())
    })
}

/// Asks many at once, one line each: what came back, or "-". `patience` is for each, in seconds.
const ASK: &str = "import socket, sys
patience = float(sys.argv[1])
for item in sys.argv[2:]:
    kind, address, port = item.split('/')
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(patience)
    try:
        s.connect((address, int(port)))
        if kind == 'udp':
            s.sendall(b'q')
        print(s.recv(100).decode().strip() or '-')
    except OSError:
        print('-')
    s.close()
";

fn ask(bed: &Bed, place: Option<&Place>, patience: f32, items: &[String]) -> Result<Vec<String>> {
    let path = bed.dir().join("ask.py");
    std::fs::write(&path, ASK)?;
    let script = format!("python3 {} {patience} {}", path.display(), items.join(" "));
    let said = match place {
        Some(place) => place.sh(bed, &script)?,
        None => bed.sh(&script)?,
    };
    Ok(said.ok()?.stdout.lines().map(String::from).collect())
}

const HOST4: &str = "198.51.100.1";
const HOST6: &str = "2001:db8::1";

/// What is published, and by which of the host's addresses it is reached, and by which not.
struct Case {
    publish: String,
    protocol: &'static str,
    /// First port of the host, first inside, how many.
    ports: (u16, u16, u16),
    open: Vec<&'static str>,
    shut: Vec<&'static str>,
}

/// All cases of one family ("4", "6", "46").
fn cases(family: &str) -> Vec<Case> {
    let has = |part: &str| family.contains(part);
    let hosts: Vec<&'static str> =
        [("4", HOST4), ("6", HOST6)].iter().filter(|(f, _)| has(f)).map(|(_, h)| *h).collect();
    let mut cases = Vec::new();
    for (number, (protocol, inside)) in [("tcp", 80), ("udp", 53)].into_iter().enumerate() {
        let base = 18000 + 1000 * number as u16;
        let mut add = |offset: u16, host: &str, range: u16, open: Vec<&'static str>, shut: Vec<&'static str>| {
            let first = base + offset;
            let last = if range > 1 { format!("-{}", first + range - 1) } else { String::new() };
            let to = if range > 1 { format!("-{}", inside + range - 1) } else { String::new() };
            let publish = format!("-p {host}{first}{last}:{inside}{to}/{protocol}");
            cases.push(Case { publish, protocol, ports: (first, inside, range), open, shut });
        };
        add(0, "", 1, hosts.clone(), vec![]);
        add(10, "", 3, hosts.clone(), vec![]);
        if has("4") {
            add(20, "198.51.100.1:", 1, vec![HOST4], vec!["127.0.0.1"]);
            add(30, "198.51.100.1:", 3, vec![HOST4], vec!["198.51.100.8"]);
            add(40, "0.0.0.0:", 1, vec![HOST4, "127.0.0.1", "198.51.100.8"], vec![HOST6]);
            add(50, "127.0.0.1:", 1, vec!["127.0.0.1"], vec![HOST4]);
        }
        if has("6") {
            add(60, "[2001:db8::1]:", 1, vec![HOST6], vec!["2001:db8::8"]);
            add(70, "[2001:db8::1]:", 3, vec![HOST6], vec!["2001:db8::8"]);
            add(80, "[::]:", 1, vec![HOST6, "2001:db8::8"], vec![HOST4]);
        }
    }
    cases
}

#[test]
fn each_kind_of_publishing_is_reached_where_it_says() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        bed.sh("ip addr add 198.51.100.8/24 dev up0; ip -6 addr add 2001:db8::8/64 dev up0 nodad")?.ok()?;
        for (family, subnets) in [
            ("4", "--subnet 10.80.0.0/24"),
            ("6", "--disable-ipv4 --subnet fd80::/64"),
            ("46", "--subnet 10.80.0.0/24 --subnet fd80::/64"),
        ] {
            let a = Place::new(bed, &format!("a{family}"))?;
            servers(bed, &a)?;
            pier(bed, &format!("create blue {subnets}"))?.ok()?;
            let cases = cases(family);
            let publish: Vec<&str> = cases.iter().map(|case| case.publish.as_str()).collect();
            a.attach(bed, "blue", "a", &format!("{} -p 19999:99/sctp -p 19000-19002:99-101/sctp", publish.join(" ")))?;
            let (mut items, mut wanted, mut outside, mut shut) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for Case { protocol, ports: (first, inside, range), open, shut: closed, .. } in &cases {
                for address in open {
                    items.extend((0..*range).map(|step| format!("{protocol}/{address}/{}", first + step)));
                    wanted.extend((0..*range).map(|step| format!("port {}", inside + step)));
                }
                let by_neighbours = open.iter().filter(|address| !address.starts_with("127."));
                outside.extend(
                    by_neighbours.map(|address| (format!("{protocol}/{address}/{first}"), format!("port {inside}"))),
                );
                shut.extend(closed.iter().map(|address| format!("{protocol}/{address}/{first}")));
            }
            let said = ask(bed, None, 3.0, &items)?;
            for ((item, said), wanted) in items.iter().zip(&said).zip(&wanted) {
                ensure!(said == wanted, "IPv{family}, from the host: {item} said {said:?}, not {wanted:?}");
            }
            let from_host = items.len();
            let (items, wanted): (Vec<String>, Vec<String>) = outside.into_iter().unzip();
            let said = ask(bed, Some(&there), 3.0, &items)?;
            for ((item, said), wanted) in items.iter().zip(&said).zip(&wanted) {
                ensure!(said == wanted, "IPv{family}, from outside: {item} said {said:?}, not {wanted:?}");
            }
            for (item, said) in shut.iter().zip(ask(bed, None, 0.4, &shut)?) {
                ensure!(said == "-", "IPv{family}: {item} said {said:?}");
            }
            println!("IPv{family}: {} from the host, {} from outside, {} shut", from_host, items.len(), shut.len());
            // No kernel without its module has SCTP sockets; the rules are there all the same.
            let rules = bed.sh("nft list ruleset")?.ok()?.stdout;
            ensure!(rules.contains("sctp . ") && rules.contains("19999"), "{rules}");
            pier(bed, "detach --owner a")?.ok()?;
            let rules = bed.sh("nft list ruleset")?.ok()?.stdout;
            ensure!(!rules.contains("sctp . ") && !rules.contains(" . 18"), "{rules}");
            ensure!(ask(bed, Some(&there), 0.4, &items)?.iter().all(|said| said == "-"), "still published");
            pier(bed, "rm blue")?.ok()?;
            a.end()?;
        }
        remove_outside(bed)
    })
}

#[test]
fn one_port_of_two_protocols_and_of_two_addresses_goes_whole() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        bed.sh("ip addr add 198.51.100.8/24 dev up0")?.ok()?;
        pier(bed, "create blue --subnet 10.80.0.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        let ports = "-p 198.51.100.1:8080:80/tcp -p 198.51.100.1:8080:80/udp -p 198.51.100.8:8080:80/tcp";
        a.attach(bed, "blue", "a", ports)?;
        let shown = bed.sh("nft list ruleset")?.ok()?.stdout;
        for wanted in ["tcp . 198.51.100.1 . 8080", "udp . 198.51.100.1 . 8080", "tcp . 198.51.100.8 . 8080"] {
            ensure!(shown.contains(wanted), "{wanted} is not in {shown}");
        }
        let id =
            pier(bed, "endpoints --owner a --format json")?.ok()?.json()?[0]["id"].as_str().context("id")?.to_owned();
        pier(bed, &format!("unpublish {id} 198.51.100.1:8080:80/udp"))?.ok()?;
        bed.sh("nft list ruleset")?.ok()?.without("udp . 198.51.100.1")?.has("tcp . 198.51.100.1 . 8080")?;
        pier(bed, "detach --owner a")?.ok()?;
        bed.sh("nft list ruleset")?.ok()?.without("8080")?;
        pier(bed, "rm blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn a_publishing_that_cannot_be_is_named() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.80.0.0/24")?.ok()?;
        pier(bed, "create den --internal --subnet 10.81.0.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        for (network, ports, why) in [
            ("blue", "-p abcd:8080:80", "abcd"),
            ("blue", "-p [::1]:8080:80", "no addresses of that family"),
            ("blue", "-p 8080:80/icmp", "icmp"),
            ("blue", "-p 8080-8082:80-81", "8080-8082"),
            ("blue", "-p 65535-65536:80-81", "65536"),
            ("blue", "-p 8080:80 -p 8080:81", "twice"),
            ("blue", "-p 70000:80", "70000"),
            ("den", "-p 8080:80", "publishes no ports"),
        ] {
            let line = format!("--error-format json attach {network} {} --owner a {ports}", a.path);
            pier(bed, &line)?.exits(1)?.with("INVALID_ARGUMENT").context(ports)?.has(why)?;
        }
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        pier(bed, "rm blue den")?.ok().map(drop)
    })
}
