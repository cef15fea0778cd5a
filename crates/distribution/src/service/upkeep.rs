//! The calls on the store as a whole: blobs, leases, garbage, checks, events. Each converts and calls what the verb of that name
//! calls.

use std::time::Duration;

use api::distribution::v1 as pb;
use oci::Digest;

use super::stream::Send;
use crate::error::{Error, Result};
use crate::registry::MANIFEST_MAX;
use crate::{Store, check, convert, events, gc};

pub fn read_blob(store: &Store, from: &pb::ReadBlobRequest) -> Result<pb::ReadBlobResponse> {
    let data = store.content().read(&convert::digest(&from.digest)?, MANIFEST_MAX)?;
    Ok(pb::ReadBlobResponse { data })
}

pub fn write_blob(store: &Store, from: pb::WriteBlobRequest) -> Result<pb::WriteBlobResponse> {
    if from.data.len() as u64 > MANIFEST_MAX {
        let problem = format!("{} bytes, at most {MANIFEST_MAX} are taken", from.data.len());
        return Err(Error::NameInvalid { what: "blob", name: from.media_type, problem });
    }
    let lease = Some(from.lease.as_str()).filter(|lease| !lease.is_empty());
    let descriptor = store.content().write(&from.data, &from.media_type, lease)?;
    Ok(pb::WriteBlobResponse { descriptor: Some(convert::descriptor(&descriptor)) })
}

pub fn create_lease(store: &Store, from: pb::CreateLeaseRequest) -> Result<pb::CreateLeaseResponse> {
    let ttl = u64::try_from(from.ttl_seconds).unwrap_or(0);
    let id = Some(from.id.as_str()).filter(|id| !id.is_empty());
    let lease = store.leases().create(id, ttl, &from.labels.into_iter().collect())?;
    Ok(pb::CreateLeaseResponse { id: lease.id })
}

pub fn collect_garbage(store: &Store, from: pb::CollectGarbageRequest) -> Result<pb::CollectGarbageResponse> {
    let pb::CollectGarbageRequest { dry_run, abandoned, quarantine } = from;
    let policy = gc::Policy { dry_run, abandoned, quarantine, ..gc::Policy::default() };
    let report = gc::run(store, &policy)?;
    let texts = |digests: Vec<Digest>| digests.into_iter().map(String::from).collect();
    Ok(pb::CollectGarbageResponse {
        removed_blobs: texts(report.removed_blobs),
        removed_layers: texts(report.removed_layers),
        reclaimed_bytes: i64::try_from(report.reclaimed_bytes).unwrap_or(i64::MAX),
    })
}

pub fn check(store: &Store, repair: bool, send: &Send<pb::CheckResponse>) -> Result<()> {
    check::run(store, repair, |finding| {
        send(pb::CheckResponse {
            object: finding.object,
            ok: finding.problem.is_none(),
            problem: finding.problem.unwrap_or_default(),
            repaired: finding.repaired,
        });
    })
}

pub fn info(store: &Store) -> Result<pb::InfoResponse> {
    let (snapshotter, notes) = store.snapshotter()?;
    Ok(pb::InfoResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        root: store.root().display().to_string(),
        snapshotter: snapshotter.into(),
        notes,
    })
}

/// The journal from a moment on, to another or without end.
pub struct Watch {
    filters: crate::image::Filters,
    until: i64,
    follow: events::Follow,
}

impl Watch {
    pub fn begin(store: &Store, from: pb::StreamEventsRequest) -> Result<Self> {
        let filter = from.filter.unwrap_or_default();
        let since = if filter.since_unix_nano == 0 { events::now() } else { filter.since_unix_nano };
        let follow = events::Journal::open(store.root()).follow(since)?;
        Ok(Self { filters: convert::filters(filter.filters), until: filter.until_unix_nano, follow })
    }

    pub async fn run(mut self, send: Send<pb::StreamEventsResponse>) -> Result<()> {
        let until = self.until;
        loop {
            for event in self.follow.read()? {
                let in_time = until == 0 || event.time_unix_nano <= until;
                if in_time && convert::event_passes(&event, &self.filters) {
                    send(pb::StreamEventsResponse { event: Some(convert::event(event)) });
                }
            }
            let left = u64::try_from(until - events::now()).ok();
            match (until, left) {
                (0, _) => self.follow.changed().await?,
                (_, None) => return Ok(()),
                (_, Some(nanos)) => {
                    let _ = tokio::time::timeout(Duration::from_nanos(nanos), self.follow.changed()).await;
                }
            }
        }
    }
}

/// Collects garbage by itself, as long as this is polled.
pub async fn collect_by_itself(store: Store, how: gc::automatic::Automatic) {
    let mut last = std::time::Instant::now();
    loop {
        tokio::time::sleep(gc::automatic::LOOK.min(how.interval)).await;
        let (store, since) = (store.clone(), last.elapsed());
        match crate::transport::pump::blocking(move || gc::automatic::turn(&store, &how, since)).await {
            Ok(None) => {}
            Ok(Some(report)) => {
                last = std::time::Instant::now();
                tracing::debug!(bytes = report.reclaimed_bytes, "collected garbage");
            }
            Err(error) => tracing::warn!(%error, "cannot collect garbage"),
        }
    }
}
