#![allow(clippy::unwrap_used)]
use super::keys::of_text;
use super::steps::{Picture, steps};
use super::*;

const OLD: &str = "0123456789abcdef-old";
const NEW: &str = "0123456789abcdef-new";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(local: &str) -> Ipsec {
    Ipsec { local: ip(local), port: 4789, vni: 77, key_file: "/k".into(), reqid: 1 }
}

fn wanted(ipsec: &Ipsec, peers: &[&str], secrets: &str) -> Picture<(Association, Keys)> {
    let (peers, secrets) = (peers.iter().map(|peer| ip(peer)).collect(), of_text(secrets).unwrap());
    Picture { policies: ipsec.policies(&peers, &secrets[0]), associations: ipsec.associations(&peers, &secrets) }
}

/// As the kernel says it after all steps.
fn settled(wanted: &Picture<(Association, Keys)>) -> Picture<Association> {
    let associations = wanted.associations.iter().map(|(association, _)| association.clone()).collect();
    Picture { associations, policies: wanted.policies.clone() }
}

#[test]
fn both_hosts_come_to_the_same_keys() {
    let (a, b) = (host("192.0.2.1"), host("192.0.2.2"));
    let (here, there) = (wanted(&a, &["192.0.2.2"], OLD), wanted(&b, &["192.0.2.1"], OLD));
    let sorted = |picture: &Picture<(Association, Keys)>| {
        let mut all = picture.associations.clone();
        all.sort_by_key(|(association, _)| association.spi);
        all
    };
    assert_eq!(sorted(&here), sorted(&there));
    // Each direction has keys of its own, each network, and each port.
    let [one, other] = [&here.associations[0], &here.associations[1]];
    assert!(one.1 != other.1 && one.1.cipher != one.1.integrity && one.0.spi != other.0.spi);
    for changed in [Ipsec { vni: 78, ..a.clone() }, Ipsec { port: 4790, ..a.clone() }] {
        assert_ne!(wanted(&changed, &["192.0.2.2"], OLD).associations[0].1, one.1);
    }
    assert!(here.associations.iter().all(|(association, _)| association.spi >= 256));
    assert_eq!(format!("{:?}", one.1), "Keys(..)");
}

#[test]
fn keys_stay_as_they_are() {
    // A new version of the program on one host has to talk to the old one on another. The values are
    // RFC 5869 written in python with its `hmac`; the context is b"pier overlay esp 1" + (77).to_bytes(4) +
    // (4789).to_bytes(2) + ip_address("::ffff:192.0.2.1").packed + ip_address("::ffff:192.0.2.2").packed.
    let here = wanted(&host("192.0.2.1"), &["192.0.2.2"], OLD);
    let (association, keys) = &here.associations[0];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (hex(&keys.cipher), hex(&keys.integrity)),
        (
            "2f1d174b75de1fecd0a7ce79e4f632f4c1f12b92b6b5e992604a2281ed5aa0b0".into(),
            "7356113cb6ca64cda0c494af5a68a61b1ed01ceaf099a32c37a16dc79d6ffb87".into()
        )
    );
    assert_eq!(association.spi, 0x5186_2736);
}

#[test]
fn key_files_are_checked() {
    for (text, why) in [("", "no secret"), (" \n\n", "no secret"), (&format!("{OLD}\nshort\n"), "line 2 is shorter")] {
        let error = of_text(text).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(of_text(&format!("\n {OLD} \r\n{NEW}\n{OLD}\n")).unwrap().len(), 2);
}

#[test]
fn peers_are_single_hosts_of_the_family() {
    let here = host("192.0.2.1");
    assert!(here.check_peers(&[ip("192.0.2.2")]).is_ok());
    for peer in ["2001:db8::2", "192.0.2.1", "224.0.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255"] {
        assert!(here.check_peers(&[ip(peer)]).is_err(), "{peer}");
    }
}

#[test]
fn what_blocks_comes_first_and_goes_last() {
    let here = wanted(&host("192.0.2.1"), &["192.0.2.2"], OLD);
    let made = steps(&here, &Picture::default());
    let lines: Vec<String> = made.iter().map(|step| step.to_string().split(" (").next().unwrap().to_owned()).collect();
    assert_eq!(
        lines,
        [
            "add IPsec policy in from 0.0.0.0/0 to 0.0.0.0/0",
            "add IPsec policy out from 192.0.2.1/32 to 0.0.0.0/0",
            "add IPsec association from 192.0.2.1 to 192.0.2.2",
            "add IPsec association from 192.0.2.2 to 192.0.2.1",
            "add IPsec policy in from 192.0.2.2/32 to 192.0.2.1/32",
            "add IPsec policy out from 192.0.2.1/32 to 192.0.2.2/32",
        ]
    );
    assert_eq!(steps(&here, &settled(&here)), []);
    let gone: Vec<String> = steps(&Picture::default(), &settled(&here)).iter().map(Step::to_string).collect();
    assert_eq!(gone[0], "remove IPsec policy in from 192.0.2.2/32 to 192.0.2.1/32");
    assert_eq!(gone[3], "remove IPsec policy out from 192.0.2.1/32 to 0.0.0.0/0");
    assert_eq!(gone.len(), 6);
    assert!(made.iter().all(|step| step.back().is_some_and(|back| back.removes())));
}

#[test]
fn another_secret_loses_nothing() {
    let here = host("192.0.2.1");
    let with = |secrets: &str| wanted(&here, &["192.0.2.2"], secrets);
    let lines = |from: &str, to: &str| -> Vec<String> {
        let steps = steps(&with(to), &settled(&with(from)));
        steps.iter().map(|step| step.to_string().split(" (").next().unwrap().to_owned()).collect()
    };
    let (both, turned) = (format!("{OLD}\n{NEW}"), format!("{NEW}\n{OLD}"));
    let (sends, takes) = ("association from 192.0.2.1 to 192.0.2.2", "association from 192.0.2.2 to 192.0.2.1");
    assert_eq!(lines(OLD, &both), [format!("add IPsec {takes}")]);
    let change = "change IPsec policy out from 192.0.2.1/32 to 192.0.2.2/32".to_owned();
    // The new one is there before it is used, the old one goes when it is not.
    assert_eq!(lines(&both, &turned), [format!("add IPsec {sends}"), change, format!("remove IPsec {sends}")]);
    assert_eq!(lines(&turned, NEW), [format!("remove IPsec {takes}")]);
}

#[test]
fn a_packet_as_large_as_the_room_fits() {
    for (local, link, room) in [("192.0.2.1", 1500, 1408), ("2001:db8::1", 1500, 1376), ("192.0.2.1", 9000, 8896)] {
        assert_eq!(host(local).room(link), room, "{local} {link}");
    }
    // Whatever is inside, with its padding, is no larger than the link's.
    for link in 200..1600 {
        let inside = host("192.0.2.1").room(link) + 14 + 8 + 8;
        assert!(20 + AROUND + (inside + TRAILER).next_multiple_of(BLOCK) <= link, "{link}");
    }
    assert_eq!(host("192.0.2.1").room(10), 0);
}
