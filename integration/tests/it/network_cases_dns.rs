//! Names, case by case, by a client that shows all of an answer: code, flags, lifetime, every record.
use crate::network_place::{Place, outside, pier, remove_outside, upstream};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

const ASK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ask.py");

/// One line for each question.
fn ask(bed: &Bed, place: Option<&Place>, way: &str, server: &str, questions: &str) -> Result<Vec<String>> {
    let script = format!("python3 {ASK} {way} {server} {questions}");
    let said = match place {
        Some(place) => place.sh(bed, &script)?,
        None => bed.sh(&script)?,
    };
    Ok(said.ok()?.stdout.lines().map(String::from).collect())
}

/// The host's upstreams are these, for the next program that starts.
fn upstreams(bed: &Bed, servers: &[&str]) -> Result<String> {
    let path = bed.dir().join("resolv.conf");
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    std::fs::write(&path, text)?;
    Ok(format!("--resolv-conf {}", path.display()))
}

#[test]
fn an_answer_is_whole_over_both_transports() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.51", 51)?;
        let conf = upstreams(bed, &["127.0.0.51"])?;
        pier(bed, "create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        let a = Place::on(bed, "blue", "aone", &format!("--name aone --name a1 --name 1a {conf}"))?;
        for server in ["10.77.1.1", "fd77::1"] {
            for way in ["udp", "tcp"] {
                let said = ask(bed, Some(&a), way, server, "aone a1 1A aone/AAAA aone/MX example.org nobody")?;
                let is = |at: usize, code: &str, records: &str| -> Result {
                    let line = &said[at];
                    let good = line.starts_with(&format!("{code} ra=1 ")) && line.ends_with(records);
                    ensure!(good, "{way} {server}: {line}");
                    Ok(())
                };
                // Not to be kept: endpoints come and go.
                is(0, "NOERROR", " aone. 0 1 10.77.1.2")?;
                is(1, "NOERROR", " a1. 0 1 10.77.1.2")?;
                is(2, "NOERROR", " 0 1 10.77.1.2")?;
                is(3, "NOERROR", " aone. 0 28 fd77::2")?;
                // A name that is ours has nothing of that type, and is no NXDOMAIN.
                is(4, "NOERROR", " ")?;
                is(5, "NOERROR", " 1 192.0.2.51")?;
                is(6, "NXDOMAIN", " ")?;
            }
        }
        let back = ask(bed, Some(&a), "udp", "10.77.1.1", "2.1.77.10.in-addr.arpa/PTR")?;
        ensure!(back[0].ends_with("2.1.77.10.in-addr.arpa. 0 12 aone."), "{back:?}");
        let nibbles = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa";
        let back = ask(bed, Some(&a), "udp", "fd77::1", &format!("{nibbles}/PTR"))?;
        ensure!(back[0].ends_with(&format!("{nibbles}. 0 12 aone.")), "{back:?}");
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_query_that_never_ends_costs_nothing() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        // Sixty bytes are announced and do not come: the client goes, or stays and says nothing.
        a.sh(bed, "printf '\\000\\074' | socat -u - TCP:10.77.1.1:53")?.ok()?;
        a.spawn(bed, "silent", "printf '\\000\\074' | exec socat -T 60 -,ignoreeof TCP:10.77.1.1:53")?;
        let ticks = || -> Result<u64> {
            let stat = bed.sh("cat /proc/$(pgrep -f 'pier-network .*keep$')/stat")?.ok()?.stdout;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("a number");
            Ok(number(11)? + number(12)?)
        };
        let before = ticks()?;
        std::thread::sleep(Duration::from_secs(1));
        let used = ticks()? - before;
        ensure!(used < 10, "{used} ticks of a hundred in one second");
        for way in ["tcp", "udp"] {
            ensure!(ask(bed, Some(&a), way, "10.77.1.1", "a")?[0].ends_with("10.77.1.2"));
        }
        bed.sh("kill $(pgrep -x socat)")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_silent_upstream_costs_no_time_beside_one_that_answers() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.52", 52)?;
        bed.spawn("deaf-udp", bed.command("socat").args(["-u", "UDP-RECV:53,bind=127.0.0.51", "OPEN:/dev/null"]))?;
        bed.spawn("deaf-tcp", bed.command("socat").args(["TCP-LISTEN:53,bind=127.0.0.51,fork", "EXEC:sleep 60"]))?;
        eventually(Duration::from_secs(5), || bed.sh("ss -Hlntu src 127.0.0.51 | wc -l")?.ok()?.has("2"))?;
        let conf = upstreams(bed, &["127.0.0.99"])?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", &format!("--dns 127.0.0.51 --dns 127.0.0.52 {conf}"))?;
        for way in ["udp", "tcp"] {
            let said = ask(bed, Some(&a), way, "10.77.1.1", "example.org")?;
            let took = said[0].split("ms=").nth(1).and_then(|rest| rest.split(' ').next()).context("a time")?;
            ensure!(said[0].ends_with("192.0.2.52") && took.parse::<u32>()? < 1000, "{way}: {said:?}");
        }
        // Nobody else answers: the client is told so in time, and own names are as quick as ever.
        let b = Place::on(bed, "blue", "b", "--dns 127.0.0.51")?;
        eventually(Duration::from_secs(2), || {
            let own = ask(bed, Some(&b), "udp", "10.77.1.1", "b")?;
            ensure!(own[0].ends_with("10.77.1.3"), "{own:?}");
            Ok(())
        })?;
        let said = ask(bed, Some(&b), "udp", "10.77.1.1", "example.org a")?;
        ensure!(said[0].starts_with("SERVFAIL") && said[1].ends_with("10.77.1.2"), "{said:?}");
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn short_names_go_upstream_only_where_that_is_wished() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.51", 51)?;
        let conf = upstreams(bed, &["127.0.0.51"])?;
        pier(bed, "create shy --subnet 10.77.1.0/24")?.ok()?;
        pier(bed, "create open --subnet 10.77.2.0/24 -o forward_short_names=true")?.ok()?;
        let a = Place::on(bed, "shy", "a", &conf)?;
        let b = Place::on(bed, "open", "b", "--name b --name nas")?;
        let said = ask(bed, Some(&a), "udp", "10.77.1.1", "secret")?;
        ensure!(said[0].starts_with("NXDOMAIN"), "{said:?}");
        eventually(Duration::from_secs(2), || {
            let said = ask(bed, Some(&b), "udp", "10.77.2.1", "printer nas failing")?;
            ensure!(said[0].ends_with("192.0.2.51") && said[1].ends_with("10.77.2.2"), "{said:?}");
            // What the upstream says of a name is passed on.
            ensure!(said[2].starts_with("SERVFAIL"), "{said:?}");
            Ok(())
        })?;
        let log = bed.log("127.0.0.51");
        ensure!(log.contains("printer") && !log.contains("secret") && !log.contains("nas"), "{log}");
        pier(bed, "rm -f shy open")?.ok().map(drop)
    })
}

#[test]
fn names_cross_networks_of_different_families() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.51", 51)?;
        let conf = upstreams(bed, &["127.0.0.51"])?;
        pier(bed, "create four --subnet 10.77.1.0/24")?.ok()?;
        pier(bed, "create six --disable-ipv4 --subnet fd77:2::/64")?.ok()?;
        pier(bed, "create also --disable-ipv4 --subnet fd77:3::/64")?.ok()?;
        let a = Place::on(bed, "four", "aone", &conf)?;
        let c = Place::on(bed, "also", "cone", "")?;
        a.attach(bed, "six", "aone", "--name aone --name aone_nw")?;
        c.attach(bed, "six", "cone", "--name cone --name cone_nw")?;
        eventually(Duration::from_secs(2), || {
            for (server, name) in [("fd77:2::1", "cone"), ("10.77.1.1", "cone"), ("10.77.1.1", "cone_nw")] {
                let said = ask(bed, Some(&a), "udp", server, &format!("{name}/AAAA"))?;
                ensure!(said[0].contains("fd77:2::3"), "{server} {name}: {said:?}");
            }
            for (server, name) in [("fd77:2::1", "aone"), ("fd77:3::1", "aone"), ("fd77:3::1", "aone_nw")] {
                let said = ask(bed, Some(&c), "udp", server, &format!("{name}/AAAA"))?;
                ensure!(said[0].contains("fd77:2::2"), "{server} {name}: {said:?}");
            }
            Ok(())
        })?;
        // An IPv6-only network forwards as well, and the host may ask each network for its own names only.
        let said = ask(bed, Some(&c), "udp", "fd77:3::1", "example.org/AAAA example.org")?;
        ensure!(said[0].starts_with("NOERROR") && said[1].ends_with("192.0.2.51"), "{said:?}");
        let said = ask(bed, None, "udp", "10.77.1.1", "aone cone")?;
        ensure!(said[0].ends_with("10.77.1.2") && said[1].starts_with("NXDOMAIN"), "{said:?}");
        let said = ask(bed, None, "udp", "fd77:3::1", "cone/AAAA aone/AAAA")?;
        ensure!(said[0].contains("fd77:3::2") && said[1].starts_with("NXDOMAIN"), "{said:?}");
        pier(bed, "rm -f four six also")?.ok().map(drop)
    })
}

#[test]
fn names_of_networks_may_be_as_long_as_they_like() -> Result {
    isolated!(|bed| {
        let long = format!("n{}", "1".repeat(109));
        pier(bed, &format!("create {long} --subnet 10.77.1.0/24"))?.ok()?;
        let a = Place::on(bed, &long, "aone", "--name aone --name a1")?;
        let said = ask(bed, Some(&a), "udp", "10.77.1.1", "aone a1 host.docker.internal")?;
        ensure!(said[0].ends_with("10.77.1.2") && said[1].ends_with("10.77.1.2") && said[2].ends_with("10.77.1.1"));
        pier(bed, &format!("rm -f {long}"))?.ok().map(drop)
    })
}

#[test]
fn an_endpoint_of_two_networks_is_found_at_both_addresses() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        pier(bed, "create red --subnet 10.77.2.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "aone", "")?;
        let b = Place::on(bed, "red", "bone", "")?;
        let both = Place::on(bed, "blue", "both", "")?;
        both.attach(bed, "red", "both", "")?;
        eventually(Duration::from_secs(2), || {
            // Those on one network get the address they reach.
            let said = ask(bed, Some(&a), "udp", "10.77.1.1", "both bone")?;
            ensure!(said[0].ends_with(" 10.77.1.3") && said[1].starts_with("NXDOMAIN"), "{said:?}");
            let said = ask(bed, Some(&b), "udp", "10.77.2.1", "both aone")?;
            ensure!(said[0].ends_with(" 10.77.2.3") && said[1].starts_with("NXDOMAIN"), "{said:?}");
            for (server, own) in [("10.77.1.1", " 10.77.1.3"), ("10.77.2.1", " 10.77.2.3")] {
                let said = ask(bed, Some(&both), "udp", server, "aone bone aone.blue bone.red both")?;
                for (line, wanted) in said.iter().zip([" 10.77.1.2", " 10.77.2.2", " 10.77.1.2", " 10.77.2.2", own]) {
                    ensure!(line.ends_with(wanted), "{server}: {said:?}");
                }
            }
            Ok(())
        })?;
        pier(bed, "rm -f blue red")?.ok().map(drop)
    })
}

#[test]
fn without_its_server_an_endpoint_is_whole_and_the_reason_told() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        there.answer(bed, "outside", 80)?;
        // The keeper cannot begin: its log cannot be opened.
        std::fs::create_dir_all(bed.run().join("network/keeper.log"))?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        let told = pier(bed, &format!("attach blue {} --owner a", a.path))?.ok()?;
        told.with("names are not served")?.has("10.77.1.2")?;
        a.ask(bed, "198.51.100.2:80")?.ok()?.has("hello outside")?;
        std::fs::remove_dir(bed.run().join("network/keeper.log"))?;
        // The next one that comes starts it, for everybody.
        let _b = Place::on(bed, "blue", "b", "")?;
        ensure!(ask(bed, Some(&a), "udp", "10.77.1.1", "a b")?[1].ends_with("10.77.1.3"));
        pier(bed, "rm -f blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn on_somebody_elses_bridge_names_are_served_at_its_address() -> Result {
    isolated!(|bed| {
        bed.sh("ip link add br7 type bridge && ip link set br7 up && ip addr add 198.18.0.1/24 dev br7")?.ok()?;
        let yours = "-o mode=unmanaged -o com.docker.network.bridge.name=br7 --subnet 10.88.0.0/24";
        pier(bed, &format!("create yours {yours}"))?.ok()?;
        // No address that its endpoints could ask: said, and everything else is as it should be.
        let a = Place::new(bed, "a")?;
        let line = format!("attach yours {} --owner aone", a.path);
        let told = pier(bed, &line)?.ok()?.with("names are not served")?;
        ensure!(told.stdout.contains("\"dns_servers\": []"), "{told}");
        pier(bed, "detach --owner aone")?.ok()?;
        bed.sh("ip addr add 10.88.0.100/24 dev br7")?.ok()?;
        let told = pier(bed, &line)?.ok()?.json()?;
        ensure!(told["dns_servers"][0] == "10.88.0.100" && told["gateways"][0] == "10.88.0.1", "{told}");
        for way in ["udp", "tcp"] {
            let said = ask(bed, Some(&a), way, "10.88.0.100", "aone host.docker.internal")?;
            ensure!(said[0].ends_with(" 10.88.0.3") && said[1].ends_with(" 10.88.0.100"), "{said:?}");
        }
        pier(bed, "--error-format json update yours --dns-add 10.88.0.100")?.exits(1)?.has("would ask itself")?;
        pier(bed, "rm -f yours")?.ok()?;
        bed.sh("ip -o addr show br7")?.ok()?.with("10.88.0.100")?.has("198.18.0.1")?;
        bed.sh("ip link del br7")?.ok().map(drop)
    })
}
