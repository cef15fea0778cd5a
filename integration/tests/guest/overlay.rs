//! Overlay networks that the kernel encrypts: two hosts, and a stranger, on one wire.
use crate::bed::{Guest, inside};
use anyhow::{Context, ensure};
use integration::{Outcome, Result};

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result {
            inside("storage", stringify!($test), |g| on_the_wire(g, cases::$test))
        })*
    };
}

tests! {
    nobody_on_the_wire_reads_it;
    nothing_comes_in_in_the_clear;
    secrets_change_without_a_lost_packet;
    what_others_flush_is_mended;
    peers_come_and_go;
    policies_of_others_are_left_alone;
}

/// The wire between hosts `a`, `b` and `x`, each a namespace, and containers `ca` and `cb`.
const WIRE: &str = "set -e
    modprobe -a bridge veth vxlan; ip link add wire type bridge mcast_snooping 0; ip link set wire up
    for h in a b x; do
        ip netns add $h; ip link add to-$h type veth peer name up0 netns $h; ip link set to-$h master wire up
        on $h ip link set lo up; on $h ip link set up0 up
    done
    for n in 1:a 2:b 9:x; do
        on ${n#*:} ip addr add 192.0.2.${n%:*}/24 dev up0; on ${n#*:} ip addr add 2001:db8::${n%:*}/64 dev up0 nodad
    done
    for c in ca cb; do ip netns add $c; on $c ip link set lo up; done
    (umask 077; head -c 32 /dev/urandom | base64 >key; head -c 32 /dev/urandom | base64 >other-key)";

/// A script with `pier HOST ...`, whose stacks are apart; `on NAMESPACE ...`; `ping CONTAINER ADDRESS`, and `reach`, which tries again while neighbours ask; `mesh A B OPTIONS`, which
/// makes the network on both hosts and attaches a container to each; `capture SCRIPT`, which leaves all of the wire in `cap`.
const PRELUDE: &str = "BUSYBOX=/pier/rootfs/bin/busybox; VXLAN='udp port 4789'
    on() { local n=$1; shift; nsenter --net=/run/netns/$n \"$@\"; }
    pier() { local h=$1; shift; on $h pier-network --root $PWD/$h-root --run $PWD/$h-run \"$@\"; }
    ping() { on $1 $BUSYBOX ping -c1 -W2 $2; }
    reach() { for i in 1 2 3 4 5 6 7 8; do ping $1 $2 && return; sleep 0.2; done; return 1; }
    host() {
        pier $1 create mesh -d overlay -o vni=77 --subnet 10.60.0.0/16 --ip-range 10.60.$2.0/24 --gateway 10.60.$2.1 \
            -o local=$3 --peer $4 $5 && pier $1 attach mesh /run/netns/c$1 --owner c$1 --ip 10.60.$2.10
    }
    mesh() { host a 1 $1 $2 \"$3\" && host b 2 $2 $1 \"$3\"; }
    end() { pier a rm -f mesh; pier b rm -f mesh; }
    capture() {
        rm -f cap log; tcpdump --immediate-mode -i wire -U -w cap 2>log & t=$!
        for i in $(seq 100); do grep -q listening log && break; sleep 0.05; done
        sh -c \". ./prelude; $1\"; e=$?; sleep 0.3; kill $t; wait $t; return $e
    }
    seen() { tcpdump -nr cap \"$1\" 2>/dev/null | wc -l; }
    xfrm() { for h in a b; do on $h ip xfrm state; on $h ip xfrm policy; done; }
    SECRET='-o encrypted -o key-file='$PWD/key\n";

fn sh(g: &Guest, script: &str) -> Result<Outcome> {
    g.sh(&format!(". ./prelude\n{script}"))
}

fn on_the_wire(g: &Guest, body: fn(&Guest) -> Result) -> Result {
    g.sh(&format!("cat >prelude <<'END'\n{PRELUDE}END\n"))?.ok()?;
    let done = sh(g, WIRE)?.ok().and_then(|_| body(g));
    let left = sh(g, "end >/dev/null 2>&1; xfrm; for n in a b x ca cb; do ip netns del $n; done; ip link del wire")?;
    done?;
    let left = left.ok()?;
    ensure!(left.stdout.is_empty(), "left behind: {}", left.stdout);
    Ok(())
}

/// Numbers, one a line.
fn numbers(outcome: &Outcome) -> Vec<u64> {
    outcome.stdout.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

mod cases {
    use super::*;

    const TALK: &str = "on cb socat -u TCP-LISTEN:80 OPEN:got,creat,trunc & s=\\$!; sleep 0.3
        echo THE-KNOWN-PAYLOAD | on ca socat -u - TCP:10.60.2.10:80; wait \\$s
        on ca $BUSYBOX ping -c1 -W2 10.60.2.10 -s";

    /// What is said is on the wire as ESP only, over IPv4 and IPv6; without encryption it can be read there. A packet as
    /// large as the link takes leaves in one piece.
    pub fn nobody_on_the_wire_reads_it(g: &Guest) -> Result {
        let (v4, v6) = (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"));
        for ((a, b), options, esp, fragment, mtu) in [
            (v4, "", "ip proto 50", "ip[6:2] & 0x3fff != 0", 1450),
            (v4, "$SECRET", "ip proto 50", "ip[6:2] & 0x3fff != 0", 1408),
            (v6, "$SECRET", "ip6 proto 50", "ip6 proto 44", 1376),
        ] {
            let encrypted = !options.is_empty();
            let what = format!("{a} {options}");
            sh(g, &format!("mesh {a} {b} \"{options}\""))?.ok().context(what.clone())?;
            sh(g, "on ca ip link show eth0")?.ok()?.has(&format!("mtu {mtu}")).context(what.clone())?;
            let talk = sh(g, &format!("capture \"{TALK} {}\"; cat got", mtu - 28))?.ok()?;
            talk.with("1 packets received")?.has("THE-KNOWN-PAYLOAD").context(what.clone())?;
            let count =
                format!("grep -ac THE-KNOWN-PAYLOAD cap; seen \"$VXLAN\"; seen '{esp}'; seen '{fragment}'; true");
            let seen = numbers(&sh(g, &count)?.ok()?);
            ensure!(seen.len() == 4 && seen[3] == 0, "{what}: {seen:?}");
            ensure!((seen[0] == 0, seen[1] == 0, seen[2] > 0) == (encrypted, encrypted, encrypted), "{what}: {seen:?}");
            if encrypted {
                let inspected = sh(g, "pier a inspect mesh; cat a-root/network/network.db* >all; grep -acf key all")?;
                inspected.with("\"encrypted\"")?.has("\n0\n")?;
            }
            sh(g, "end")?.ok()?;
            ensure!(sh(g, "xfrm")?.ok()?.stdout.is_empty(), "{what}: something is left");
        }
        Ok(())
    }

    /// Frames for the network in packets that no peer encrypted: of a stranger, of a peer, to another address of the host.
    pub fn nothing_comes_in_in_the_clear(g: &Guest) -> Result {
        sh(g, "on a ip addr add 198.51.100.1/32 dev up0; on x ip route add 198.51.100.1 via 192.0.2.1")?.ok()?;
        // Whether a container sees the question who has an address.
        let inject = |from: &str, to: &str| -> Result<u64> {
            let local = if from == "x" { "192.0.2.9" } else { "192.0.2.2" };
            let script = format!(
                "on ca timeout 2 tcpdump --immediate-mode -i eth0 -nc1 'arp and src host 10.60.0.99' >sees 2>log & t=$!
                 for i in $(seq 100); do grep -q listening log && break; sleep 0.05; done
                 on {from} ip link add bad type vxlan id 77 remote {to} local {local} dstport 4789
                 on {from} ip addr add 10.60.0.99/16 dev bad; on {from} ip link set bad up
                 on {from} $BUSYBOX ping -c1 -W1 10.60.1.10 >/dev/null; on {from} ip link del bad; wait $t
                 grep -c 10.60.0.99 sees; true"
            );
            numbers(&sh(g, &script)?.ok()?).last().copied().context("a number")
        };
        for (options, let_in) in [("", true), ("$SECRET", false)] {
            sh(g, &format!("mesh 192.0.2.1 192.0.2.2 \"{options}\"; pier b rm -f mesh"))?.ok()?;
            for (from, to) in [("x", "192.0.2.1"), ("b", "192.0.2.1"), ("x", "198.51.100.1")] {
                ensure!((inject(from, to)? > 0) == let_in, "{from} to {to} {options}: let in is not {let_in}");
            }
            sh(g, "end")?.ok()?;
        }
        Ok(())
    }

    /// With two secrets there is no way. A new one is appended everywhere, then is the first everywhere, then the only one.
    pub fn secrets_change_without_a_lost_packet(g: &Guest) -> Result {
        let begin = "cp -p other-key b-key; host a 1 192.0.2.1 192.0.2.2 \"$SECRET\"
            host b 2 192.0.2.2 192.0.2.1 \"${SECRET%key}b-key\"; ping ca 10.60.2.10";
        sh(g, begin)?.fails()?.has("0 packets received").context("with two secrets")?;
        sh(g, "rm b-key; ln -s key b-key; pier b check --repair; reach ca 10.60.2.10")?.ok().context("with one")?;
        let script = "nsenter --net=/run/netns/ca $BUSYBOX ping -i 0.02 10.60.2.10 >pinged & t=$!
            before=$(on a ip xfrm state | grep spi | sort)
            for new in \"$(cat key other-key)\" \"$(cat other-key key)\" \"$(cat other-key)\"; do
                echo \"$new\" >key
                for h in a b; do pier $h check && echo nothing to do; pier $h check --repair; done
            done
            after=$(on a ip xfrm state | grep spi | sort); sleep 0.5; kill -INT $t; wait $t; pier a check
            [ $(echo \"$after\" | wc -l) = 2 ] && [ \"$before\" != \"$after\" ] && grep transmitted pinged";
        let done = sh(g, script)?.ok()?.without("nothing to do")?;
        let (sent, received) = match numbers(&done).last_chunk::<2>() {
            Some([sent, received]) => (*sent, *received),
            None => anyhow::bail!("no counts: {}", done.stdout),
        };
        // The last one may be on its way.
        ensure!(sent > 50 && sent - received <= 1, "of {sent} packets {received} came back");
        sh(g, "end")?.ok().map(drop)
    }

    /// States that others flushed: nothing passes, in the clear least of all. Policies too: it is said and mended.
    pub fn what_others_flush_is_mended(g: &Guest) -> Result {
        sh(g, "mesh 192.0.2.1 192.0.2.2 \"$SECRET\"; ping ca 10.60.2.10; pier a check")?.ok()?;
        sh(g, "on a ip xfrm state flush; capture 'ping ca 10.60.2.10'")?.fails()?;
        ensure!(numbers(&sh(g, "seen \"$VXLAN\"")?.ok()?) == [0], "sent in the clear");
        sh(g, "pier a check")?.fails()?.with("association from 192.0.2.1 to 192.0.2.2")?.has("is missing")?;
        sh(g, "pier a check --repair && reach ca 10.60.2.10 && pier a check")?.ok()?;
        sh(g, "on a ip xfrm policy flush; pier a check")?
            .fails()?
            .with("policy out from 192.0.2.1/32")?
            .has("is missing")?;
        sh(g, "pier a check --repair && capture 'ping ca 10.60.2.10' && pier a check && seen \"$VXLAN\"")?
            .ok()?
            .has("\n0\n")?;
        // Without the secret nothing is changed.
        sh(g, "chmod 644 key; pier a check")?.fails()?.has("others than its owner")?;
        sh(g, "pier a check --repair; ping ca 10.60.2.10; end")?.ok().map(drop)
    }

    pub fn peers_come_and_go(g: &Guest) -> Result {
        sh(g, "mesh 192.0.2.1 192.0.2.2 \"$SECRET\"; ping ca 10.60.2.10")?.ok()?;
        // Who is no peer any more is sent nothing, though the link learned where its containers are.
        sh(g, "pier a peers mesh 192.0.2.9; capture 'ping ca 10.60.2.10'")?.fails()?;
        let count = "seen \"$VXLAN\"; on a ip xfrm state | grep -c '^src.*dst 192.0.2.9'; on a ip xfrm state | grep -c 192.0.2.2; true";
        ensure!(numbers(&sh(g, count)?.ok()?) == [0, 1, 0], "{:?}", sh(g, "on a ip xfrm state")?);
        sh(g, "pier a peers mesh 192.0.2.2 2001:db8::9")?.fails()?.has("is not of the family")?;
        sh(g, "pier a peers mesh 192.0.2.9 192.0.2.2; reach ca 10.60.2.10; pier a check")?.ok()?;
        // A change that fails is taken back.
        sh(g, "on a ip xfrm policy add src 192.0.2.7 dst 192.0.2.1 proto udp dport 4789 dir in; pier a peers mesh 192.0.2.7")?
            .fails()?
            .has("somebody else has an IPsec policy for UDP port 4789")?;
        sh(g, "on a ip xfrm policy del src 192.0.2.7 dst 192.0.2.1 proto udp dport 4789 dir in; pier a check; ping ca 10.60.2.10")?
            .ok()?;
        sh(g, "end")?.ok().map(drop)
    }

    pub fn policies_of_others_are_left_alone(g: &Guest) -> Result {
        let begin =
            "on a ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789 dir out action block priority 7
            on a ip xfrm policy add src 192.0.2.1 dst 192.0.2.9 dir out action allow
            host a 1 192.0.2.1 192.0.2.2 \"$SECRET\"";
        sh(g, begin)?.fails()?.has("somebody else has an IPsec policy for UDP port 4789")?;
        sh(g, "on a ip xfrm state; on a ip -o link")?.ok()?.without("192.0.2")?.without("px-")?;
        sh(g, "[ $(on a ip xfrm policy | grep -c dir) = 2 ]")?.ok()?;
        // The rest of the host's IPsec is none of our business.
        sh(
            g,
            "on a ip xfrm policy del src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789 dir out; pier a rm -f mesh
            mesh 192.0.2.1 192.0.2.2 \"$SECRET\"; ping ca 10.60.2.10; pier a check; end
            on a ip xfrm policy; on a ip xfrm policy flush",
        )?
        .ok()?
        .has("dst 192.0.2.9/32")
    }
}
