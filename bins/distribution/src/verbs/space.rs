//! Verbs on the store as a whole.

use console::{Format, Table, human_size};

use super::store;
use crate::args::Args;

pub fn gc(args: &Args, dry_run: bool, abandoned: bool, format: Format) -> anyhow::Result<u8> {
    let policy = distribution::gc::Policy { dry_run, abandoned, ..Default::default() };
    let report = distribution::gc::run(&store(args)?, &policy)?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({
            "removed_blobs": report.removed_blobs,
            "removed_layers": report.removed_layers,
            "reclaimed_bytes": report.reclaimed_bytes,
        }))?;
        return Ok(0);
    }
    report.removed_blobs.iter().for_each(|digest| println!("blob {digest}"));
    report.removed_layers.iter().for_each(|digest| println!("layer {digest}"));
    println!("{}: {}", if dry_run { "reclaimable" } else { "reclaimed" }, human_size(report.reclaimed_bytes));
    Ok(0)
}

pub fn df(args: &Args, format: Format) -> anyhow::Result<u8> {
    let usage = store(args)?.usage()?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({
            "blobs_bytes": usage.blobs_bytes,
            "layers_bytes": usage.layers_bytes,
            "snapshots_bytes": usage.snapshots_bytes,
            "reclaimable_bytes": usage.reclaimable_bytes,
            "images": usage.images,
            "snapshots": usage.snapshots,
        }))?;
        return Ok(0);
    }
    let mut table = Table::new(["WHAT", "COUNT", "SIZE"]);
    table.row(["images".into(), usage.images.to_string(), String::new()]);
    table.row(["blobs".into(), String::new(), human_size(usage.blobs_bytes)]);
    table.row(["layers".into(), String::new(), human_size(usage.layers_bytes)]);
    table.row(["snapshots".into(), usage.snapshots.to_string(), human_size(usage.snapshots_bytes)]);
    table.row(["reclaimable".into(), String::new(), human_size(usage.reclaimable_bytes)]);
    table.print()?;
    Ok(0)
}

pub fn check(args: &Args, repair: bool, format: Format) -> anyhow::Result<u8> {
    let (mut objects, mut damaged) = (0, 0);
    distribution::check::run(&store(args)?, repair, |finding| {
        objects += 1;
        damaged += u64::from(finding.problem.is_some());
        if format == Format::Json {
            let line = serde_json::json!({
                "object": finding.object, "ok": finding.problem.is_none(),
                "problem": finding.problem, "repaired": finding.repaired,
            });
            println!("{line}");
        } else if let Some(problem) = &finding.problem {
            println!("{}: {problem}{}", finding.object, if finding.repaired { " (repaired)" } else { "" });
        }
    })?;
    if format == Format::Table {
        println!("{objects} objects, {damaged} damaged");
    }
    Ok(if damaged > 0 { 3 } else { 0 })
}
