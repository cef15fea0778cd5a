//! ipvlan, case by case, with traffic.
use crate::bed::{Guest, inside};
use crate::network::{NO_OUTSIDE, OUTSIDE, picture, sh};
use anyhow::{Context, ensure};
use integration::Result;
use serde_json::Value;

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result { inside("storage", stringify!($test), |g| with_outside(g, cases::$test)) })*
    };
}

tests! {
    each_mode_carries_traffic;
    it_is_what_it_was_asked_to_be;
    routes_lead_where_they_were_asked_to;
    addresses_are_those_that_were_asked_for;
}

/// A case beside a neighbour, who tells on TCP port 80 who asks; nothing may stay.
fn with_outside(g: &Guest, case: impl FnOnce(&Guest) -> Result) -> Result {
    let before = picture(g)?;
    sh(g, &format!("set -e\n{OUTSIDE} tell out TCP6 80"))?.ok()?;
    case(g)?;
    sh(g, &format!("{NO_OUTSIDE} pier-network endpoints --format json"))?.ok()?.has("[]")?;
    let after = picture(g)?;
    ensure!(before == after, "before\n{before}\nafter\n{after}");
    Ok(())
}

/// In the neighbour's own subnets.
const NEAR: &str = "-d ipvlan -o parent=up0 --subnet 198.51.100.0/24 --gateway 198.51.100.2 --ip-range 198.51.100.64/28 \
                    --subnet 2001:db8::/64 --gateway 2001:db8::2";

fn link(g: &Guest, netns: &str, name: &str) -> Result<Value> {
    Ok(sh(g, &format!("at {netns} ip -j -d link show {name}"))?.ok()?.json()?[0].clone())
}

/// The answer to an attach of `a`.
fn attach(g: &Guest, options: &str) -> Result<Value> {
    sh(g, &format!("pier-network attach lan /run/netns/a --owner a {options}"))?.ok()?.json()
}

mod cases {
    use super::*;

    pub fn each_mode_carries_traffic(g: &Guest) -> Result {
        let far = "-d ipvlan -o parent=up0 --subnet 10.72.0.0/24 --subnet fd72::/64";
        // Routed modes have subnets of their own, and answer nobody who looks for neighbours: who is outside has routes.
        sh(g, "ip -n out route add 10.72.0.0/24 via 198.51.100.1; ip -n out route add fd72::/64 via 2001:db8::1")?
            .ok()?;
        for (options, mode, create) in [
            ("", "l2", NEAR),
            ("-o mode=l2", "l2", NEAR),
            ("-o mode=l3", "l3", far),
            ("-o ipvlan_mode=l3s", "l3s", far),
        ] {
            sh(g, &format!("pier-network create lan {create} {options}"))?.ok()?;
            let told = attach(g, "")?;
            sh(g, "pier-network attach lan /run/netns/b --owner b")?.ok()?;
            let made = link(g, "a", "eth0")?;
            ensure!(
                made["linkinfo"]["info_kind"] == "ipvlan" && made["linkinfo"]["info_data"]["mode"] == mode,
                "{made}"
            );
            for (address, neighbour) in
                told["addresses"].as_array().context("addresses")?.iter().zip(["198.51.100.2", "[2001:db8::2]"])
            {
                let own = address.as_str().and_then(|a| a.split('/').next()).context("an address")?;
                let plain = neighbour.trim_matches(['[', ']']);
                sh(g, &format!("ping b {own}"))?.ok().with_context(|| format!("{mode}: b to {own}"))?;
                sh(g, &format!("ping out {own}"))?.ok().with_context(|| format!("{mode}: outside to {own}"))?;
                sh(g, &format!("ping a {plain}"))?.ok().with_context(|| format!("{mode}: {own} to outside"))?;
                let seen = sh(g, &format!("ask a TCP:{neighbour}:80"))?.ok()?;
                ensure!(crate::network::seen(&seen) == own, "{mode}: {own} is seen as {seen}");
            }
            sh(g, "pier-network rm -f lan; for n in a b; do ip -n $n -o link; done")?.ok()?.without("eth0")?;
        }
        Ok(())
    }

    pub fn it_is_what_it_was_asked_to_be(g: &Guest) -> Result {
        // The parent has inside the name that it has here.
        sh(g, "ip link set up0 down; ip link set up0 name eth0; ip link set eth0 up; ip -6 addr add 2001:db8::1/64 dev eth0 nodad")?
            .ok()?;
        let lan = NEAR.replace("up0", "eth0");
        let parent = link(g, "host", "eth0")?;
        for (options, asked, mtu) in [("", "", 1500), ("-o mtu=1400", "", 1400), ("-o mtu=1400", "--mtu 1300", 1300)] {
            sh(g, &format!("pier-network create lan {lan} {options}"))?.ok()?;
            let told = attach(g, &format!("--interface eth0 {asked}"))?;
            let made = link(g, "a", "eth0")?;
            ensure!(made["mtu"] == mtu && link(g, "host", "eth0")?["mtu"] == 1500, "{options} {asked}: {made}");
            ensure!(made["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP")), "{made}");
            ensure!(made["address"] == parent["address"], "{made} {parent}");
            ensure!(
                told["mac_address"] == parent["address"] && told["gateways"][0] == "198.51.100.2",
                "{told} {parent}"
            );
            sh(g, "ping a 198.51.100.2 && pier-network rm -f lan")?.ok()?;
        }
        // All share the parent's.
        sh(g, &format!("pier-network create lan {lan}"))?.ok()?;
        let own = "pier-network --error-format json attach lan /run/netns/a --owner a --mac-address 02:00:00:00:00:77";
        sh(g, own)?.exits(1)?.with("INVALID_ARGUMENT")?.has("MAC address of its parent")?;
        sh(g, "pier-network rm -f lan")?.ok()?;
        // Without addresses it is a link, up, and no more.
        sh(g, "pier-network create lan -d ipvlan -o parent=eth0 --ipam-driver none")?.ok()?;
        attach(g, "")?;
        ensure!(link(g, "a", "eth0")?["linkinfo"]["info_kind"] == "ipvlan");
        ensure!(sh(g, "ip -n a -4 addr show eth0; ip -n a route")?.ok()?.out().is_empty());
        sh(g, "pier-network rm -f lan && ip link set eth0 down && ip link set eth0 name up0")?.ok().map(drop)
    }

    pub fn routes_lead_where_they_were_asked_to(g: &Guest) -> Result {
        sh(g, "ip -n out addr add 203.0.113.1/32 dev lo; ip -n out addr add 192.0.2.1/32 dev lo; ip -n out addr add 2001:db8:f::1/128 dev lo")?
            .ok()?;
        let fixed =
            "--route 203.0.113.0/24,198.51.100.2 --route 2001:db8:f::/64,2001:db8::2 --route 192.0.2.0/24,blackhole";
        for (create, asked, default, far) in [
            ("", "", true, true),
            (fixed, "", true, true),
            ("-o no_default_route=true", "", false, false),
            ("-o no_default_route=true", fixed, false, true),
            ("", "--no-default-route", false, false),
            ("--internal", "", false, false),
        ] {
            let case = format!("create {create:?}, attach {asked:?}");
            sh(g, &format!("pier-network create lan {NEAR} {create}"))?.ok()?;
            attach(g, asked)?;
            let shown = sh(g, "ip -n a route; ip -n a -6 route")?.ok()?;
            ensure!(shown.stdout.matches("default via").count() == if default { 2 } else { 0 }, "{case}: {shown}");
            sh(g, "ping a 198.51.100.2 && ping a 2001:db8::2")?.ok().context(case.clone())?;
            for address in ["203.0.113.1", "2001:db8:f::1"] {
                let went = sh(g, &format!("ping a {address}"))?;
                ensure!((went.code == 0) == far, "{case}: {went}");
            }
            let nowhere = create.contains("blackhole") || asked.contains("blackhole");
            ensure!((sh(g, "ping a 192.0.2.1")?.code == 0) == (default && !nowhere), "{case}: {shown}");
            sh(g, "pier-network rm -f lan; ip -n a route; ip -n a -6 route")?
                .ok()?
                .without("via")?
                .without("blackhole")?;
        }
        Ok(())
    }

    pub fn addresses_are_those_that_were_asked_for(g: &Guest) -> Result {
        sh(g, &format!("pier-network create lan {NEAR} --subnet 10.89.0.0/24"))?.ok()?;
        sh(g, "ip -n out addr add 10.89.0.9/24 dev up0")?.ok()?;
        for ips in [["198.51.100.5", "198.51.100.10", "2001:db8::77"], ["198.51.100.5", "10.89.0.10", "198.51.100.15"]]
        {
            let wanted: String = ips.iter().map(|ip| format!(" --ip {ip}")).collect();
            attach(g, &wanted)?;
            for ip in ips {
                sh(g, &format!("ping out {ip}"))?.ok().with_context(|| format!("{ip} of {ips:?}"))?;
            }
            let default = sh(g, "ip -n a route show default")?.ok()?;
            ensure!(default.stdout.matches("via 198.51.100.2").count() == 1, "{default}");
            sh(g, "pier-network detach --owner a")?.ok()?;
        }
        sh(g, "pier-network rm lan")?.ok().map(drop)
    }
}
