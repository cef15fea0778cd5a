//! macvlan and ipvlan, case by case.
use crate::network_place::{Place, outside, pier, remove_outside};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::Value;

fn inside(bed: &Bed, place: &Place, name: &str) -> Result<Value> {
    Ok(place.sh(bed, &format!("ip -j -d link show {name}"))?.ok()?.json()?[0].clone())
}

/// The names of all links, of the host and inside.
fn links(bed: &Bed, place: &Place) -> Result<String> {
    let names = "ip -o link | cut -d: -f2 | cut -d@ -f1 | sort | tr -d '\\n'";
    Ok(format!("{} | {}", bed.sh(names)?.ok()?.stdout, place.sh(bed, names)?.ok()?.stdout))
}

#[test]
fn a_macvlan_is_what_it_was_asked_to_be() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        let lan =
            "-d macvlan -o parent=up0 --subnet 198.51.100.0/24 --gateway 198.51.100.2 --ip-range 198.51.100.64/28";
        pier(bed, &format!("create lan {lan} -o mtu=1400"))?.ok()?;
        let a = Place::new(bed, "a")?;
        let mac = "02:00:00:00:00:77";
        let told = pier(bed, &format!("attach lan {} --owner a --mac-address {mac}", a.path))?.ok()?.json()?;
        let link = inside(bed, &a, "eth0")?;
        ensure!(link["linkinfo"]["info_kind"] == "macvlan" && link["mtu"] == 1400, "{link}");
        ensure!(link["address"] == mac && told["mac_address"] == mac, "{link} {told}");
        ensure!(link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP")), "{link}");
        let address = told["addresses"][0].as_str().context("an address")?;
        ensure!(address == "198.51.100.64/24" && told["gateways"][0] == "198.51.100.2", "{told}");
        let shown = a.sh(bed, "ip addr show eth0; ip route; cat /proc/sys/net/ipv6/conf/eth0/accept_ra")?.ok()?;
        shown.with(address)?.with("default via 198.51.100.2")?.has("\n0")?;
        there.answer(bed, "outside", 80)?;
        a.ask(bed, "198.51.100.2:80")?.ok()?.has("hello outside")?;
        pier(bed, "detach --owner a")?.ok()?;
        pier(bed, "rm lan")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn each_mode_of_a_macvlan_is_the_kernels() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        let a = Place::new(bed, "a")?;
        for (options, wanted) in [
            ("", "bridge"),
            ("-o mode=bridge", "bridge"),
            ("-o mode=private", "private"),
            ("-o macvlan_mode=vepa", "vepa"),
            ("-o mode=passthru", "passthru"),
            ("-o mode=source", "source"),
            ("-o bclim=-1", "bridge"),
        ] {
            pier(bed, &format!("create lan -d macvlan -o parent=up0 --subnet 10.71.0.0/24 {options}"))?.ok()?;
            a.attach(bed, "lan", "a", "")?;
            let link = inside(bed, &a, "eth0")?;
            ensure!(link["linkinfo"]["info_data"]["mode"] == wanted && link["mtu"] == 1500, "{options}: {link}");
            pier(bed, "rm -f lan")?.ok()?;
        }
        remove_outside(bed)
    })
}

/// The kernel's IFLA_MACVLAN_BC_CUTOFF of a link, which this ip(8) does not show; the kernel leaves the default, 1, out.
const LIMIT: &str = "import socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
n = sys.argv[1].encode() + b'\\0'
n += b'\\0' * (-len(n) % 4)
body = struct.pack('=BxHiII', 0, 0, 0, 0, 0) + struct.pack('=HH', 4 + len(sys.argv[1]) + 1, 3) + n
s.send(struct.pack('=IHHII', 16 + len(body), 18, 1, 1, 0) + body)
def items(data):
    while len(data) >= 4:
        length, kind = struct.unpack('=HH', data[:4])
        yield kind & 0x3fff, data[4:length]
        data = data[(length + 3) & ~3:]
link = dict(items(s.recv(65536)[32:]))
limit = dict(items(dict(items(link[18]))[2])).get(9)
print(struct.unpack('=i', limit)[0] if limit else 1)";

#[test]
fn a_macvlan_delivers_as_much_at_once_as_it_was_told() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        std::fs::write(bed.dir().join("limit.py"), LIMIT)?;
        let a = Place::new(bed, "a")?;
        for (options, wanted) in [("", "1"), ("-o bclim=7", "7"), ("-o bclim=-1", "-1")] {
            pier(bed, &format!("create lan -d macvlan -o parent=up0 --subnet 10.71.0.0/24 {options}"))?.ok()?;
            a.attach(bed, "lan", "a", "")?;
            let said = a.sh(bed, &format!("python3 {}/limit.py eth0", bed.dir().display()))?.ok()?;
            ensure!(said.out() == wanted, "{options}: {said}");
            pier(bed, "rm -f lan")?.ok()?;
        }
        remove_outside(bed)
    })
}

#[test]
fn a_macvlan_without_addresses_has_none() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        pier(bed, "create lan -d macvlan -o parent=up0 --ipam-driver none")?.ok()?;
        let a = Place::new(bed, "a")?;
        let told = pier(bed, &format!("attach lan {} --owner a", a.path))?.ok()?.json()?;
        let link = inside(bed, &a, "eth0")?;
        ensure!(link["address"] == told["mac_address"] && link["linkinfo"]["info_kind"] == "macvlan", "{link}");
        ensure!(a.sh(bed, "ip -4 addr show eth0; ip route")?.ok()?.out().is_empty());
        pier(bed, "rm -f lan")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn names_of_links_clash_with_nobodys() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        bed.sh("ip link set up0 down && ip link set up0 name eth0 && ip link set eth0 up")?.ok()?;
        for (driver, subnet) in [("macvlan", "10.71.0.0/24"), ("ipvlan", "10.72.0.0/24")] {
            pier(bed, &format!("create {driver} -d {driver} -o parent=eth0 --subnet {subnet}"))?.ok()?;
            let a = Place::new(bed, driver)?;
            let before = links(bed, &a)?;
            // The parent's own name, inside.
            let made = pier(bed, &format!("attach {driver} {} --owner a --interface eth0", a.path))?;
            if made.code != 0 {
                made.has("this kernel has no ipvlan links")?;
                println!("skipped: names_of_links_clash_with_nobodys ({driver}): this kernel has no such links");
            } else {
                a.sh(bed, "ip link show eth0")?.ok()?;
                pier(bed, "detach --owner a")?.ok()?;
            }
            ensure!(links(bed, &a)? == before, "{before}\nnow {}", links(bed, &a)?);
            // A name that is taken inside: nothing is made, on neither side.
            a.sh(bed, "ip link add eth0 type bridge")?.ok()?;
            let before = links(bed, &a)?;
            pier(bed, &format!("attach {driver} {} --owner a --interface eth0", a.path))?
                .exits(1)?
                .has("has it already")?;
            ensure!(links(bed, &a)? == before, "{before}\nnow {}", links(bed, &a)?);
            pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
            pier(bed, &format!("rm {driver}"))?.ok()?;
            a.end()?;
        }
        bed.sh("ip link del eth0")?.ok().map(drop)
    })
}

#[test]
fn several_addresses_of_several_subnets_and_what_is_wrong_with_them() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        for driver in ["macvlan", "ipvlan"] {
            let lan = format!("-d {driver} -o parent=up0");
            for (subnets, why) in [
                ("--subnet 10.1.2.0/23 --subnet 10.1.3.248/30", "of the same network"),
                ("--subnet 10.88.0.0/24 --subnet 10.88.0.0/24", "of the same network"),
            ] {
                let line = format!("--error-format json create lan {lan} {subnets}");
                pier(bed, &line)?.exits(1)?.with("SUBNET_OVERLAP")?.has(why)?;
            }
            pier(bed, &format!("create lan {lan} --subnet 10.88.0.0/24 --subnet 10.89.0.0/24"))?.ok()?;
            let a = Place::new(bed, driver)?;
            for ips in ["--ip 10.88.0.5 --ip 10.89.0.10 --ip 10.90.0.15", "--ip 10.90.0.15"] {
                let line = format!("--error-format json attach lan {} --owner a {ips}", a.path);
                pier(bed, &line)?.exits(1)?.with("INVALID_ARGUMENT")?.has("10.90.0.15: not in a subnet")?;
            }
            for ips in [&["10.88.0.5", "10.88.0.10", "10.88.0.15"][..], &["10.88.0.5", "10.89.0.10", "10.88.0.15"]] {
                let wanted: String = ips.iter().map(|ip| format!(" --ip {ip}")).collect();
                let made = pier(bed, &format!("attach lan {} --owner a{wanted}", a.path))?;
                if driver == "ipvlan" && made.code != 0 {
                    made.has("this kernel has no ipvlan links")?;
                    continue;
                }
                let told = made.ok()?.json()?;
                let shown = a.sh(bed, "ip -4 addr show eth0; ip route show default")?.ok()?;
                for ip in ips {
                    ensure!(shown.stdout.contains(&format!("{ip}/24")), "{ip} is not in {shown}");
                }
                ensure!(
                    shown.stdout.matches("default via 10.88.0.1").count() == 1 && told["gateways"][0] == "10.88.0.1"
                );
                pier(bed, "detach --owner a")?.ok()?;
            }
            pier(bed, "rm lan")?.ok()?;
            a.end()?;
        }
        remove_outside(bed)
    })
}
