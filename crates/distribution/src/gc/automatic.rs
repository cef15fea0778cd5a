//! Collection that runs by itself.
//!
//! - After images were removed: what they alone needed goes at once; by the one-shot verb itself, or behind the service.
//! - The service also collects every hour, and every minute while the disk is nearly full. Then what nothing holds goes when
//!   it is older than ten minutes, and with it, while the disk is nearly full or the store larger than it may be, images
//!   without a name that no snapshot uses, the oldest first.
//!
//! An image that has a name never goes by itself. What leases of running operations hold never goes.
use super::{Policy, Reached, Report, run};
use crate::{ImageRecord, Result, Store};
use std::time::Duration;

/// What the service keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Automatic {
    /// Between two collections.
    pub interval: Duration,
    /// What is younger stays, though nothing holds it.
    pub grace: Duration,
    /// The store is larger than it may be, in bytes.
    pub keep_bytes: Option<u64>,
    /// The disk is nearly full when less of it is free, in percent.
    pub min_free_percent: u64,
}

impl Default for Automatic {
    fn default() -> Self {
        let grace = Duration::from_secs(600);
        Self { interval: Duration::from_secs(3600), grace, keep_bytes: None, min_free_percent: 5 }
    }
}

/// How often the service looks at the disk.
pub const LOOK: Duration = Duration::from_secs(60);

/// After a removal that gave up `released`.
pub fn after_removal(store: &Store, released: Reached) -> Result<Report> {
    run(store, &Policy { released, grace: Automatic::default().grace, ..Policy::default() })
}

/// One automatic collection; `None` when there is no reason for one. `since` is how long ago the last one was.
pub fn turn(store: &Store, how: &Automatic, since: Duration) -> Result<Option<Report>> {
    crate::layer::volatile::secure(store)?;
    let tight = is_tight(store, how)?;
    if since < how.interval && !tight {
        return Ok(None);
    }
    let policy = Policy { grace: how.grace, ..Policy::default() };
    let mut report = run(store, &policy)?;
    while is_tight(store, how)?
        && let Some(image) = oldest_nameless(store)?
    {
        let released = super::reachable(store, &image)?;
        store.images().remove(&image)?;
        tracing::info!(image = %image.config, "space is short: an image without a name goes");
        crate::events::record(store, "delete", image.config.as_str(), "");
        let more = run(store, &Policy { released, ..policy.clone() })?;
        report.removed_blobs.extend(more.removed_blobs);
        report.removed_layers.extend(more.removed_layers);
        report.reclaimed_bytes += more.reclaimed_bytes;
    }
    Ok(Some(report))
}

fn is_tight(store: &Store, how: &Automatic) -> Result<bool> {
    let disk = rustix::fs::statvfs(store.root()).map_err(crate::Error::io("inspect", store.root()))?;
    if disk.f_bavail.saturating_mul(100) < disk.f_blocks.saturating_mul(how.min_free_percent) {
        return Ok(true);
    }
    match how.keep_bytes {
        Some(keep) => Ok(crate::snapshot::disk_usage(store.root()) > keep),
        None => Ok(false),
    }
}

fn oldest_nameless(store: &Store) -> Result<Option<ImageRecord>> {
    let used: Vec<String> = store.snapshots().list(false)?.into_iter().filter_map(|s| s.image_id).collect();
    let images = store.images().unleased()?;
    Ok(images.into_iter().find(|image| image.names.is_empty() && !used.iter().any(|id| id == image.config.as_str())))
}
