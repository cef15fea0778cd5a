//! Encrypted overlay networks: what is refused, and how. Their traffic is in the guest's tests, for a kernel with ESP.
use crate::network::{Netns, pier};
use integration::{Result, isolated};

const MESH: &str = "create mesh -d overlay --subnet 10.60.0.0/16 --peer 192.0.2.2";

#[test]
fn an_encrypted_overlay_needs_a_secret_that_is_one() -> Result {
    isolated!(|bed| {
        let dir = bed.dir().display();
        let create = |options: &str| pier(bed, &format!("{MESH} -o encrypted {options}"));
        create("")?.exits(1)?.has("-o key-file=/PATH")?;
        create("-o key-file=/k")?.exits(1)?.has("-o local=ADDRESS")?;
        let with = |file: &str| create(&format!("-o local=192.0.2.1 -o key-file={dir}/{file}"));
        bed.sh("(umask 077; echo 0123456789abcdef >good; : >empty; printf '0123456789abcdef\\nshort\\n' >short; mkfifo pipe)
                install -m 640 good open; mkdir directory")?
            .ok()?;
        for (file, why) in [
            ("absent", "No such file"),
            ("empty", "has no secret"),
            ("short", "the secret in line 2 is shorter than 16 bytes"),
            ("open", "others than its owner may use it (mode 0640)"),
            ("pipe", "is not a file"),
            ("directory", "is not a file"),
        ] {
            with(file)?.exits(1)?.with(&format!("key file {dir}/{file}: "))?.with(why)?.has("umask 077")?;
        }
        pier(bed, "ls -q")?.ok()?.without("mesh")?;
        let local = format!("-o encrypted -o local=192.0.2.1 -o key-file={dir}/good");
        pier(bed, &format!("create mesh -d overlay --peer 2001:db8::2 {local}"))?.exits(1)?.has("peer 2001:db8::2")?;
        with("good")?.ok()?;
        // Nobody else comes in by the port, whatever its address.
        for options in ["-o local=192.0.2.7", "-o vni=9 -o encrypted=false", &local] {
            let other = pier(bed, &format!("create other -d overlay {options}"))?.exits(1)?;
            other.with("UDP port 4789 is network \"mesh\"'s")?.has("-o port=NUMBER")?;
        }
        pier(bed, "create other -d overlay -o port=4790")?.ok()?;
        pier(bed, &format!("create third -d overlay -o port=4790 {local}"))?.exits(1)?.has("\"other\"'s")?;
        pier(bed, "peers mesh 192.0.2.1")?.exits(1)?.has("is this host's own")?;
        pier(bed, "rm mesh other")?.ok().map(drop)
    })
}

#[test]
fn without_ipsec_an_encrypted_overlay_is_not_made() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        bed.sh("(umask 077; echo 0123456789abcdef >key); ip link add up0 type veth peer name up1; ip addr add 192.0.2.1/24 dev up0")?
            .ok()?;
        let picture = "ip -o link | cut -d: -f2; nft list ruleset; ip xfrm state; ip xfrm policy";
        let before = bed.sh(picture)?.ok()?.stdout;
        let options = format!("-o encrypted -o local=192.0.2.1 -o key-file={}/key", bed.dir().display());
        pier(bed, &format!("{MESH} {options}"))?.ok()?;
        let attach = format!("attach mesh {} --owner a", a.path);
        pier(bed, &format!("{attach} --dry-run"))?
            .ok()?
            .has("encrypt UDP port 4789 between 192.0.2.1 and [192.0.2.2] with ")?;
        let attached = pier(bed, &attach)?;
        if attached.code == 0 {
            println!("skipped: without_ipsec_an_encrypted_overlay_is_not_made: this kernel has ESP");
        } else {
            attached.exits(1)?.with("IPsec association from 192.0.2.1 to 192.0.2.2")?.has("this kernel has no ")?;
            pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        }
        pier(bed, "rm -f mesh")?.ok()?;
        let after = bed.sh(picture)?.ok()?.stdout;
        anyhow::ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        bed.sh("ip link del up0")?.ok().map(drop)
    })
}

/// The tunnel is a link of its own: it may go alone, stay alone, or lose its peers.
#[test]
fn a_tunnel_that_was_cut_is_mended() -> Result {
    isolated!(|bed| {
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        pier(bed, &format!("{MESH} --peer 192.0.2.3 -o com.docker.network.bridge.name=br7"))?.ok()?;
        pier(bed, &format!("attach mesh {} --owner a", a.path))?.ok()?;
        let px = bed.sh("ip -o link show type vxlan | cut -d: -f2")?.ok()?.stdout.trim().to_owned();
        for (cut, said) in [
            (format!("ip link del {px}"), "is gone"),
            (format!("ip link set {px} nomaster"), "is off its bridge"),
            (format!("bridge fdb del 00:00:00:00:00:00 dev {px} dst 192.0.2.2"), "has other peers"),
            (format!("bridge fdb append 00:00:00:00:00:00 dev {px} dst 192.0.2.4"), "has other peers"),
            ("ip link del br7".to_owned(), "bridge br7 is gone"),
        ] {
            bed.sh(&cut)?.ok()?;
            pier(bed, "check")?.exits(1)?.has(said)?;
            pier(bed, "check --repair")?.ok()?;
            pier(bed, "check")?.ok()?;
            bed.sh(&format!(
                "ip link show {px}; bridge fdb show dev {px} | grep ^00:00:00:00:00:00 | cut -d' ' -f3 | sort"
            ))?
            .ok()?
            .with("master br7")?
            .has("\n192.0.2.2\n192.0.2.3\n")?;
        }
        // Who attaches does not wait for that.
        bed.sh("ip link del br7")?.ok()?;
        pier(bed, &format!("attach mesh {} --owner b", b.path))?.ok()?;
        bed.sh(&format!("ip link show {px}"))?.ok()?.has("master br7")?;
        pier(bed, "rm -f mesh")?.ok().map(drop)
    })
}
