//! Networks against each other, case by case, in both families: closed (the default), strict, open, internal.
use crate::network_place::{Place, pier};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};

/// A namespace on a network of its own, with a server and a published port.
struct Side {
    name: &'static str,
    place: Place,
    number: u8,
}

impl Side {
    fn new(bed: &Bed, name: &'static str, options: &str, number: u8) -> Result<Self> {
        let subnets = format!("--subnet 10.82.{number}.0/24 --subnet fd82:{number}::/64");
        pier(bed, &format!("create {name} {subnets} {options}"))?.ok()?;
        let port = if options == "--internal" { String::new() } else { format!("-p 808{number}:80") };
        let place = Place::on(bed, name, name, &port)?;
        place.answer(bed, name, 80)?;
        Ok(Self { name, place, number })
    }

    fn addresses(&self) -> [String; 2] {
        [format!("10.82.{}.2:80", self.number), format!("[fd82:{}::2]:80", self.number)]
    }

    /// Whether the other's server is reached: directly, and by its published port at this network's own gateway.
    /// `patience` is in seconds.
    fn reaches(&self, bed: &Bed, other: &Self, patience: [f32; 2]) -> Result<[[bool; 2]; 2]> {
        let published = [
            format!("10.82.{}.1:808{}", self.number, other.number),
            format!("[fd82:{}::1]:808{}", self.number, other.number),
        ];
        let mut reached = [[false; 2]; 2];
        for (way, addresses) in [other.addresses(), published].iter().enumerate() {
            for (family, address) in addresses.iter().enumerate() {
                let limit = patience[way];
                let script = format!("socat -T{limit} - TCP:{address},connect-timeout={limit} </dev/null");
                let said = self.place.sh(bed, &script)?.stdout;
                reached[way][family] = said.contains(&format!("hello {}", other.name));
            }
        }
        Ok(reached)
    }
}

#[test]
fn who_reaches_whom() -> Result {
    isolated!(|bed| {
        let sides = [
            Side::new(bed, "closed1", "", 1)?,
            Side::new(bed, "closed2", "-o isolate=true", 2)?,
            Side::new(bed, "strict1", "-o isolate=strict", 3)?,
            Side::new(bed, "strict2", "-o isolate=strict", 4)?,
            Side::new(bed, "open1", "-o isolate=false", 5)?,
            Side::new(bed, "open2", "-o isolate=false", 6)?,
            Side::new(bed, "den", "--internal", 7)?,
        ];
        for side in &sides {
            for address in side.addresses() {
                side.place.ask(bed, &address)?.ok().with_context(|| format!("{} itself", side.name))?;
            }
        }
        for from in &sides {
            for to in sides.iter().filter(|to| to.name != from.name) {
                let kinds = [from, to].map(|side| side.name.trim_end_matches(char::is_numeric));
                // Open ones reach each other; a published port is reached by all but strict and internal ones.
                let direct = kinds == ["open", "open"];
                let published = !kinds.iter().any(|kind| matches!(*kind, "strict" | "den"));
                // What is dropped is not waited for.
                let patience = [direct, published].map(|open| if open { 2.0 } else { 0.3 });
                let reached = from.reaches(bed, to, patience)?;
                ensure!(reached == [[direct; 2], [published; 2]], "{} to {}: {reached:?}", from.name, to.name);
            }
        }
        let names: Vec<&str> = sides.iter().map(|side| side.name).collect();
        pier(bed, &format!("rm -f {}", names.join(" ")))?.ok()?;
        bed.sh("nft list ruleset")?.ok()?.without("10.82")?.without("fd82").map(drop)
    })
}
