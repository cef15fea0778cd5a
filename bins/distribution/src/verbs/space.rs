//! Verbs on the store as a whole.

use console::{Format, Table, human_size};
use distribution::snapshot::Snapshot;
use distribution::store::usage::{Detail, ImageUsage};

use super::store;
use crate::args::Args;

pub fn gc(args: &Args, policy: &distribution::gc::Policy, format: Format) -> anyhow::Result<u8> {
    let report = distribution::gc::run(&store(args)?, policy)?;
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
    println!("{}: {}", if policy.dry_run { "reclaimable" } else { "reclaimed" }, human_size(report.reclaimed_bytes));
    Ok(0)
}

pub fn df(args: &Args, verbose: bool, format: Format) -> anyhow::Result<u8> {
    let detail = store(args)?.usage_detail()?;
    if format == Format::Json {
        console::print_json(&document(&detail, verbose))?;
        return Ok(0);
    }
    let usage = detail.usage;
    let mut table = Table::new(["WHAT", "COUNT", "SIZE"]);
    table.row(["images".into(), usage.images.to_string(), String::new()]);
    table.row(["blobs".into(), String::new(), human_size(usage.blobs_bytes)]);
    table.row(["layers".into(), String::new(), human_size(usage.layers_bytes)]);
    table.row(["snapshots".into(), usage.snapshots.to_string(), human_size(usage.snapshots_bytes)]);
    table.row(["reclaimable".into(), String::new(), human_size(usage.reclaimable_bytes)]);
    table.print()?;
    if verbose { by_object(&detail) } else { Ok(0) }
}

fn by_object(detail: &Detail) -> anyhow::Result<u8> {
    println!();
    let mut images = Table::new(["IMAGE", "SIZE", "SHARED", "UNIQUE", "SNAPSHOTS"]);
    for one in &detail.images {
        let sizes = [one.size_bytes, one.shared_bytes, one.unique_bytes].map(human_size);
        let [size, shared, unique] = sizes;
        images.row([name(one), size, shared, unique, one.snapshots.to_string()]);
    }
    images.print()?;
    println!();
    let mut snapshots = Table::new(["SNAPSHOT", "SIZE"]);
    for one in &detail.snapshots {
        snapshots.row([one.key.clone(), human_size(one.size_bytes)]);
    }
    snapshots.print()?;
    Ok(0)
}

/// Its first name; without one, its id.
fn name(one: &ImageUsage) -> String {
    one.image.names.first().map_or_else(|| one.image.config.to_string(), ToString::to_string)
}

fn document(detail: &Detail, verbose: bool) -> serde_json::Value {
    let usage = detail.usage;
    let mut all = serde_json::json!({
        "blobs_bytes": usage.blobs_bytes,
        "layers_bytes": usage.layers_bytes,
        "snapshots_bytes": usage.snapshots_bytes,
        "reclaimable_bytes": usage.reclaimable_bytes,
        "images": usage.images,
        "snapshots": usage.snapshots,
    });
    if verbose {
        let image = |one: &ImageUsage| {
            serde_json::json!({
                "image": name(one), "size_bytes": one.size_bytes, "shared_bytes": one.shared_bytes,
                "unique_bytes": one.unique_bytes, "snapshots": one.snapshots,
            })
        };
        all["by_image"] = detail.images.iter().map(image).collect();
        let snapshot = |one: &Snapshot| serde_json::json!({"key": one.key, "size_bytes": one.size_bytes});
        all["by_snapshot"] = detail.snapshots.iter().map(snapshot).collect();
    }
    all
}

pub fn info(args: &Args, format: Format) -> anyhow::Result<u8> {
    let store = store(args)?;
    let (snapshotter, notes) = store.snapshotter()?;
    if format == Format::Json {
        console::print_json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "root": store.root(), "snapshotter": snapshotter, "notes": notes,
        }))?;
        return Ok(0);
    }
    println!("version: {}\nroot: {}\nsnapshotter: {snapshotter}", env!("CARGO_PKG_VERSION"), store.root().display());
    notes.iter().for_each(|note| println!("note: {note}"));
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
