//! `pier network`: what docker has no word for, and what its users expect to stay as it was.
use crate::cli::engine;
use crate::network_place::tcp;
use anyhow::ensure;
use integration::{Result, eventually, isolated};
use serde_json::Value;
use std::time::Duration;

const WEB: &str = "sh -c 'while :; do echo served | nc -l -p 80; done'";

#[test]
fn policies_stats_and_diagnoses_of_containers() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier network create --subnet 10.98.1.0/24 blue")?.ok()?;
        bed.sh(&format!("pier run -d --name db --label app=db --network blue -p 18080:80 bb {WEB}"))?.ok()?;
        bed.sh("pier run -d --name web --label app=web --network blue bb sleep 1000")?.ok()?;
        let ask = || bed.sh("pier exec web sh -c 'nc -w 1 10.98.1.2 80 </dev/null'");
        eventually(Duration::from_secs(5), || ask()?.ok()?.has("served"))?;
        // Policies hold at once, are listed in their order, and go.
        bed.sh("pier network policy create sql allow --from app=web --to app=db --port 5432 --port 53/udp")?
            .ok()?
            .has("sql")?;
        bed.sh("pier network policy create shut deny --from app=web --to app")?.ok()?;
        ask()?.without("served")?;
        let table = bed.sh("pier network policy ls")?.ok()?;
        ensure!(table.stdout.lines().count() == 3 && table.stdout.contains("5432/tcp, 53/udp"), "{table}");
        let rows = bed.sh("pier network policy ls --format json")?.ok()?.stdout;
        let first: Value = serde_json::from_str(rows.lines().next().unwrap_or_default())?;
        ensure!(first["Name"] == "sql" && first["Action"] == "allow" && first["From"] == "app=web", "{first}");
        bed.sh("pier network policy ls --format '{{.Name}}={{.Action}}'")?.ok()?.has("shut=deny")?;
        bed.sh("pier network policy create shut deny")?.exits(1)?.has("exists")?;
        bed.sh("pier network policy create bad deny --port 80:80")?.exits(1)?.has("PORT[-END]")?;
        bed.sh("pier network policy rm nobody")?.exits(1)?.has("Hint:")?;
        bed.sh("pier network policy rm -f nobody && pier network policy rm sql shut")?.ok()?;
        eventually(Duration::from_secs(5), || ask()?.ok()?.has("served"))?;
        // What went over the links, as the container counts.
        let stats = |more: &str| bed.sh(&format!("pier network stats {more}"));
        stats("")?.ok()?.with("CONTAINER")?.with("db")?.has("web")?;
        let row: Value = serde_json::from_str(stats("--format json db")?.ok()?.out())?;
        ensure!(row["Container"] == "db" && row["Interface"] == "eth0" && row["RxPackets"].as_u64() > Some(0), "{row}");
        let id = row["ID"].as_str().unwrap_or_default()[..12].to_owned();
        stats(&format!("{id} --format '{{{{.Container}}}}'"))?.ok()?.has("db")?;
        stats("nobody")?.exits(1)?.with("nobody")?.has("Hint:")?;
        // What is wrong with a port, and what is not with a name.
        bed.sh("pier network diagnose web --name db")?.ok()?.with("VERDICT")?.without("failed")?;
        bed.sh("pier network diagnose web --name nobody --format json")?.exits(1)?.has("\"failed\"")?;
        bed.sh("pier run -d --name deaf --network blue -p 18081:81 bb sleep 1000")?.ok()?;
        bed.sh("pier network diagnose deaf --name db")?.exits(1)?.with("nobody listens")?.has("port")?;
        bed.sh("pier network diagnose nobody")?.exits(1)?.has("Hint:")?;
        // The host differs from the records: said, then mended.
        bed.sh("pier network check")?.ok()?;
        let link = bed.sh("ip -o link show type veth | sed -n 's/.* \\(pv[0-9a-f]*\\)@.*/\\1/p' | head -1")?.ok()?;
        bed.sh(&format!("ip link set {} nomaster", link.out()))?.ok()?;
        bed.sh("pier network check")?.exits(1)?.with("DIFFERENCE")?.has("off its bridge")?;
        bed.sh("pier network check --format json")?.exits(1)?.has("\"Difference\"")?;
        bed.sh("pier network check --repair")?.ok()?.with("MENDED")?.has("put back")?;
        ensure!(bed.sh("pier network check")?.ok()?.out().is_empty());
        bed.sh("pier rm -f db web deaf && pier network rm blue")?.ok().map(drop)
    })
}

#[test]
fn an_address_that_was_asked_for_is_the_containers_for_good() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(
            "pier network create --subnet 10.98.1.0/24 --ip-range 10.98.1.20-10.98.1.29 --route 10.93.0.0/24,blackhole \
             --opt metric=77 blue",
        )?
        .ok()?;
        let own = "name=blue,ip=10.98.1.99,mac-address=02:00:00:00:00:99";
        bed.sh(&format!("pier run -d --name a --network {own} -p 18080:80 bb {WEB}"))?.ok()?;
        let is_so = || {
            let shown = bed.sh("pier exec a sh -c 'ip addr show eth0; ip route'")?.ok()?;
            shown.with("10.98.1.99/24")?.with("02:00:00:00:00:99")?.with("metric 77")?.has("blackhole 10.93.0.0/24")
        };
        is_so()?;
        bed.sh("pier run -d --name b --network blue bb sleep 1000 && pier exec b ip addr show eth0")?
            .ok()?
            .has("10.98.1.20/24")?;
        bed.sh("pier restart -t 0 a b")?.ok()?;
        is_so()?;
        bed.sh("pier stop -t 0 a && pier run --rm --network name=blue,ip=10.98.1.99 bb true && pier start a")?.ok()?;
        is_so()?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp("127.0.0.1:18080"))?.ok()?.has("served"))?;
        bed.sh("pier run --rm --network name=blue,ip=10.98.1.99 bb true")?.fails()?.has("in use")?;
        bed.sh("pier network create --route 10.93.0.0/24,blackhole,x red")?.exits(1)?.has("no metric")?;
        bed.sh("pier rm -f a b && pier network rm blue")?.ok().map(drop)
    })
}
