//! Verbs on snapshots.

use anyhow::Context as _;
use console::{Format, Table};
use distribution::image;
use distribution::layer::{Change, ChangeKind};
use distribution::pull::Lease;
use distribution::snapshot::{Commit, Prepare};
use sys::mount::Mount;

use super::{pairs, store};
use crate::args::{Args, Snapshot};
use crate::view::{Image, MountView, SnapshotView};

pub async fn run(args: &Args, verb: &Snapshot) -> anyhow::Result<u8> {
    match verb {
        Snapshot::Prepare { key, image, parent, read_only, label, snapshotter, idmap, format } => {
            let labels = pairs(label)?;
            let parents = parent.iter().map(|id| id.parse()).collect::<Result<Vec<oci::Digest>, _>>()?;
            let store = store(args)?;
            let record = image.as_deref().map(|name| image::find(&store, name)).transpose()?.map(|(record, _)| record);
            let lease = Lease::of(&store, None).await?;
            if let Some(record) = &record {
                image::unpack(&store, record, Some(lease.id()))?;
            }
            let idmap = distribution::convert::idmap(idmap)?;
            let image_id = record.as_ref().map(|record| record.config.to_string());
            let wanted = Prepare {
                key,
                parents: record.as_ref().map_or(&parents, |record| &record.diff_ids),
                read_only: *read_only,
                labels,
                image_id: image_id.as_deref(),
                lease: Some(lease.id()),
                snapshotter,
                idmap: idmap.as_ref(),
            };
            let (snapshot, mounts) = store.snapshots().prepare(&wanted)?;
            print_mounts(&snapshot.snapshotter, &mounts, format.format)
        }
        Snapshot::Mounts { key, format } => {
            let (snapshot, mounts) = store(args)?.snapshots().mounts(key)?;
            print_mounts(&snapshot.snapshotter, &mounts, format.format)
        }
        Snapshot::Ls { format } => ls(args, format.format),
        Snapshot::Rm { keys, format } => {
            let store = store(args)?;
            for key in keys {
                store.snapshots().remove(key).with_context(|| format!("remove {key}"))?;
            }
            if format.format == Format::Json {
                console::print_json(&serde_json::json!({"removed": keys}))?;
            }
            Ok(0)
        }
        Snapshot::Commit { .. } => commit(args, verb).await,
        Snapshot::Diff { key, format } => diff(args, key, format.format),
    }
}

fn print_mounts(snapshotter: &str, mounts: &[Mount], format: Format) -> anyhow::Result<u8> {
    if format == Format::Json {
        console::print_json(&mounts.iter().map(MountView::from).collect::<Vec<_>>())?;
        return Ok(0);
    }
    for mount in mounts {
        let target = mount.target.display().to_string();
        let target = target.trim_start_matches('/');
        let place = if target.is_empty() { "ROOTFS".to_owned() } else { format!("ROOTFS/{target}") };
        let words = [&mount.options.join(","), &*mount.source.to_string_lossy()].map(quoted);
        if snapshotter == "erofs" && mount.fstype == "overlay" {
            println!(
                "# a lower directory that is a file is an erofs image: mount it first, and name its place instead"
            );
        }
        println!("mount -t {} -o {} {} {place}", mount.fstype, words[0], words[1]);
    }
    Ok(0)
}

/// For a shell, only where it needs that.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-+=,./:@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn ls(args: &Args, format: Format) -> anyhow::Result<u8> {
    let snapshots = store(args)?.snapshots().list(true)?;
    if format == Format::Json {
        console::print_json(&snapshots.into_iter().map(SnapshotView::from).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut table = Table::new(["KEY", "SNAPSHOTTER", "IMAGE", "CREATED", "SIZE"]);
    for snapshot in snapshots {
        let image = snapshot.image_id.as_deref().and_then(|id| id.parse::<oci::Digest>().ok());
        table.row([
            snapshot.key,
            snapshot.snapshotter,
            image.map_or_else(String::new, |id| id.short().to_owned()),
            console::human_ago(&snapshot.created_at),
            console::human_size(snapshot.size_bytes),
        ]);
    }
    table.print()?;
    Ok(0)
}

async fn commit(args: &Args, verb: &Snapshot) -> anyhow::Result<u8> {
    let Snapshot::Commit { key, image, compression, consume, change, message, format } = verb else { return Ok(2) };
    let store = store(args)?;
    let lease = Lease::of(&store, None).await?;
    let compression = distribution::layer::Compression::parse(compression)?;
    let how = Commit { compression, keep: !consume, source_date_epoch: None, lease: Some(lease.id()) };
    if let Some(name) = image {
        let record = distribution::create::commit(&store, key, how, name, change, message)?;
        match format.format {
            Format::Json => console::print_json(&Image::of(&store, &record))?,
            Format::Table => println!("{}", record.config),
        }
        return Ok(0);
    }
    let committed = store.snapshots().commit(key, how)?;
    match (committed, format.format) {
        (None, Format::Json) => console::print_json(&serde_json::Value::Null)?,
        (None, Format::Table) => println!("nothing was written"),
        (Some(layer), Format::Json) => console::print_json(&serde_json::json!({
            "layer": layer.descriptor, "diff_id": layer.diff_id,
        }))?,
        (Some(layer), Format::Table) => println!("{} {}", layer.descriptor.digest, layer.diff_id),
    }
    Ok(0)
}

fn diff(args: &Args, key: &str, format: Format) -> anyhow::Result<u8> {
    print_changes(&store(args)?.snapshots().diff(key)?, format)
}

/// Changes as docker prints them: A, C or D, and the path.
pub fn print_changes(changes: &[Change], format: Format) -> anyhow::Result<u8> {
    let letter = |kind: &ChangeKind| match kind {
        ChangeKind::Modified => "C",
        ChangeKind::Added => "A",
        ChangeKind::Deleted => "D",
    };
    if format == Format::Json {
        let list: Vec<_> =
            changes.iter().map(|c| serde_json::json!({"path": c.path, "kind": letter(&c.kind)})).collect();
        console::print_json(&list)?;
        return Ok(0);
    }
    changes.iter().for_each(|change| println!("{} {}", letter(&change.kind), change.path));
    Ok(0)
}
