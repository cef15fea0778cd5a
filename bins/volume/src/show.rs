//! What the verbs print.

use console::{Format, Table};
use serde_json::{Value, json};
use volume::{Driver, Filters, Finding, Mount, Pruned, Snapshot, Volume, Volumes};

use crate::args::Ls;

/// `ls`: a table, names, or a JSON object a line.
pub fn list(volumes: &Volumes, ls: &Ls) -> anyhow::Result<()> {
    let listing = volumes.list(&crate::filters(&ls.filter)?, ls.size)?;
    for warning in &listing.warnings {
        eprintln!("Warning: {warning}");
    }
    if ls.quiet {
        listing.volumes.iter().for_each(|volume| println!("{}", volume.name));
        return Ok(());
    }
    if ls.format == Format::Json {
        return listing.volumes.iter().try_for_each(|volume| console::print_json_line(&object(volume)));
    }
    let mut table = if ls.size {
        Table::new(["DRIVER", "VOLUME NAME", "USED BY", "SIZE"])
    } else {
        Table::new(["DRIVER", "VOLUME NAME", "USED BY"])
    };
    for volume in &listing.volumes {
        let mut cells = vec![volume.driver.clone(), volume.name.clone(), volume.consumers.len().to_string()];
        cells.extend(volume.size_bytes.map(console::human_size));
        table.row(cells);
    }
    table.print()
}

/// `inspect`: one JSON array of those found; the first missing one is the error.
pub fn inspect(volumes: &Volumes, names: &[String], size: bool) -> anyhow::Result<u8> {
    let (mut found, mut failure) = (Vec::new(), None);
    for name in names {
        match volumes.get(name, size) {
            Ok(volume) => found.push(object(&volume)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    console::print_json(&found)?;
    failure.map_or(Ok(0), |error| Err(error.into()))
}

/// A mount as JSON, with the protocol's field names.
pub fn mount(mount: &Mount) -> anyhow::Result<()> {
    console::print_json_line(&json!({
        "type": mount.fstype, "source": mount.source, "target": mount.target, "options": mount.options,
    }))
}

/// The name, or all of a volume.
pub fn named(volume: &Volume, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return console::print_json_line(&object(volume));
    }
    println!("{}", volume.name);
    Ok(())
}

/// `prune`
pub fn pruned(pruned: &Pruned, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return console::print_json_line(
            &json!({"removed": pruned.removed, "reclaimed_bytes": pruned.reclaimed_bytes}),
        );
    }
    pruned.removed.iter().for_each(|name| println!("{name}"));
    eprintln!("Reclaimed {}", console::human_size(pruned.reclaimed_bytes));
    Ok(())
}

/// `snapshot ls`
pub fn snapshots(snapshots: &[Snapshot], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return snapshots.iter().try_for_each(|it| {
            console::print_json_line(
                &json!({"name": it.name, "created_at": it.created_at, "size_bytes": it.size_bytes}),
            )
        });
    }
    let mut table = Table::new(["SNAPSHOT", "CREATED", "SIZE"]);
    for it in snapshots {
        table.row(vec![it.name.clone(), it.created_at.clone(), console::human_size(it.size_bytes)]);
    }
    table.print()
}

/// `du`: the volumes named, or all.
pub fn usage(volumes: &Volumes, names: &[String], format: Format) -> anyhow::Result<()> {
    let found = if names.is_empty() {
        volumes.list(&Filters::default(), true)?.volumes
    } else {
        names.iter().map(|name| volumes.get(name, true)).collect::<Result<_, _>>()?
    };
    if format == Format::Json {
        return found.iter().try_for_each(|volume| console::print_json_line(&object(volume)));
    }
    let mut table = Table::new(["VOLUME NAME", "USED BY", "SIZE", "LIMIT"]);
    for volume in &found {
        let limit = volume.size_limit_bytes.map(console::human_size).unwrap_or_default();
        let size = console::human_size(volume.size_bytes.unwrap_or(0));
        table.row(vec![volume.name.clone(), volume.consumers.len().to_string(), size, limit]);
    }
    table.print()
}

/// `check`: 1 when something is left that is not as it should be.
pub fn findings(findings: &[Finding], format: Format) -> anyhow::Result<u8> {
    for it in findings {
        if format == Format::Json {
            console::print_json_line(
                &json!({"kind": it.kind, "subject": it.subject, "detail": it.detail, "repaired": it.repaired}),
            )?;
        } else {
            println!("{} {}: {}{}", it.kind, it.subject, it.detail, if it.repaired { " (repaired)" } else { "" });
        }
    }
    Ok(u8::from(findings.iter().any(|finding| !finding.repaired)))
}

/// `drivers`
pub fn drivers(drivers: &[Driver], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return drivers.iter().try_for_each(|it| {
            let (name, protocol) = (&it.name, it.protocol);
            console::print_json_line(
                &json!({"name": name, "protocol": protocol, "address": it.address, "scope": it.scope}),
            )
        });
    }
    let mut table = Table::new(["DRIVER", "PROTOCOL", "SCOPE", "ADDRESS"]);
    for it in drivers {
        table.row(vec![it.name.clone(), it.protocol.to_owned(), it.scope.clone(), it.address.clone()]);
    }
    table.print()
}

fn object(volume: &Volume) -> Value {
    let mut object = json!({
        "id": volume.id, "name": volume.name, "driver": volume.driver, "options": volume.options, "labels": volume.labels,
        "created_at": volume.created_at, "mountpoint": volume.mountpoint, "anonymous": volume.anonymous,
        "consumers": volume.consumers,
    });
    let mut more = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object[key] = value;
        }
    };
    more("size_bytes", volume.size_bytes.map(Value::from));
    more("size_limit_bytes", volume.size_limit_bytes.map(Value::from));
    more("uid", volume.uid.map(Value::from));
    more("gid", volume.gid.map(Value::from));
    more("mode", volume.mode.map(|mode| format!("{mode:o}").into()));
    more("image", volume.image.clone().map(Value::from));
    more("status", (!volume.status.is_empty()).then(|| json!(volume.status)));
    object
}
