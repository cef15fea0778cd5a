//! What the verbs print.

use console::{Format, Table};
use serde_json::{Value, json};
use volume::{Mount, Volume, Volumes};

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

fn object(volume: &Volume) -> Value {
    let mut object = json!({
        "name": volume.name, "driver": volume.driver, "options": volume.options, "labels": volume.labels,
        "created_at": volume.created_at, "mountpoint": volume.mountpoint, "anonymous": volume.anonymous,
        "consumers": volume.consumers,
    });
    if let Some(bytes) = volume.size_bytes {
        object["size_bytes"] = json!(bytes);
    }
    object
}
