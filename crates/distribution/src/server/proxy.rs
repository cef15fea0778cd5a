//! A cache of an upstream: what is not here is fetched once for all who wait for it, and kept. Tags are asked for again after a
//! minute; while the upstream is down, what is here is served.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use oci::{Descriptor, Digest};
use tokio::sync::watch;

use super::Upstream;
use super::catalog::{Catalog, Tag};
use super::manifests::{describe, keep};
use super::reply::Refusal;
use super::route::{Name, Pointer};
use crate::db::now_ms;
use crate::pull::Lease;
use crate::registry::{RawManifest, Registry, fetch};
use crate::transport::ByteStream;
use crate::transport::pump::{blocking, pump};
use crate::{Error, Result, Store};

/// A tag that the upstream confirmed so recently is not asked for again.
const FRESH: Duration = Duration::from_secs(60);
/// Longest wait for the upstream when there is something here to serve instead.
const IMPATIENT: Duration = Duration::from_secs(5);
/// Downloads at once; more wait.
const FLIGHTS: usize = 16;
/// Bytes of one chunk to a client.
const CHUNK: usize = 256 << 10;

/// The upstream.
pub(super) struct Proxy {
    registry: Registry,
    flights: Arc<Mutex<HashMap<Digest, Flight>>>,
    turns: Arc<tokio::sync::Semaphore>,
    /// A download has ended.
    pub grown: Arc<tokio::sync::Notify>,
}

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for its turn, or for another process that fetches the same.
    Waiting,
    /// So many bytes are in the file.
    Bytes(u64),
    /// All of them, verified.
    Done,
    /// It is not to be had.
    Failed,
}

/// A blob on its way from the upstream, which any number of clients read while it comes.
#[derive(Clone)]
pub(super) struct Flight {
    size: u64,
    file: Arc<Mutex<Option<Arc<File>>>>,
    stage: watch::Receiver<Stage>,
}

impl Proxy {
    /// Prepares to talk to the upstream, but does not ask it anything.
    pub async fn open(upstream: &Upstream) -> Result<Self> {
        let mut options = upstream.options.clone();
        let name = match upstream.url.split_once("://") {
            Some(("http", host)) => {
                options.plain_http = true;
                host
            }
            Some((_, host)) => host,
            None => &upstream.url,
        };
        let registry = Registry::open(name.trim_end_matches('/'), &options).await?;
        let turns = Arc::new(tokio::sync::Semaphore::new(FLIGHTS));
        Ok(Self { registry, flights: Arc::default(), turns, grown: Arc::default() })
    }

    /// The upstream's tags; `None` when it cannot tell.
    pub async fn tags(&self, name: &Name) -> Option<Vec<String>> {
        tokio::time::timeout(IMPATIENT, self.registry.tags(&name.wire)).await.ok()?.ok()
    }

    /// Brings a manifest up to date, if that is possible.
    pub async fn refresh(&self, store: &Store, name: &Name, pointer: &Pointer) -> Result<(), Refusal> {
        match pointer {
            Pointer::Digest(digest) => {
                let (store_, key, wanted) = (store.clone(), name.key.clone(), digest.clone());
                let here = blocking(move || Catalog(&store_).manifest(&key, &wanted)).await?;
                match here {
                    Some(_) => Ok(()),
                    None => self.fetch_manifest(store, name, digest.as_str(), &[]).await,
                }
            }
            Pointer::Tag(tag) => self.refresh_tag(store, name, tag).await,
        }
    }

    async fn refresh_tag(&self, store: &Store, name: &Name, tag: &str) -> Result<(), Refusal> {
        let (store_, key, wanted) = (store.clone(), name.key.clone(), tag.to_owned());
        let Some(here) = blocking(move || {
            let catalog = Catalog(&store_);
            let found = catalog.tag(&key, &wanted)?;
            Ok(match found {
                Some(found) if catalog.manifest(&key, &found.digest)?.is_some() => Some(found),
                _ => None,
            })
        })
        .await?
        else {
            return self.fetch_manifest(store, name, tag, &[tag.to_owned()]).await;
        };
        if is_fresh(&here, now_ms()) {
            return Ok(());
        }
        let asked = self.registry.manifest_digest(&name.wire, tag);
        let (store_, key, wanted) = (store.clone(), name.key.clone(), tag.to_owned());
        match tokio::time::timeout(IMPATIENT, asked).await {
            Ok(Ok(Some(digest))) if digest == here.digest.as_str() => {
                Ok(blocking(move || Catalog(&store_).confirm_tag(&key, &wanted, &here.digest)).await?)
            }
            Ok(Ok(Some(_))) => match self.fetch_manifest(store, name, tag, &[tag.to_owned()]).await {
                Err(refusal) if refusal.status.is_server_error() => Ok(()),
                other => other,
            },
            Ok(Ok(None)) => Ok(blocking(move || Catalog(&store_).remove_tag(&key, &wanted).map(drop)).await?),
            Ok(Err(error)) => {
                serve_stale(name, tag, &error);
                Ok(())
            }
            Err(elapsed) => {
                serve_stale(name, tag, &elapsed);
                Ok(())
            }
        }
    }

    /// Fetches a manifest and keeps it; what it names comes when it is asked for.
    async fn fetch_manifest(
        &self,
        store: &Store,
        name: &Name,
        reference: &str,
        tags: &[String],
    ) -> Result<(), Refusal> {
        let raw: RawManifest = match self.registry.manifest(&name.wire, reference).await {
            Ok(raw) => raw,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(Error::from(error).into()),
        };
        let new = describe(&raw.bytes, &raw.media_type, &Pointer::Digest(raw.digest.clone()))?;
        let (store, key, tags) = (store.clone(), name.key.clone(), tags.to_vec());
        blocking(move || keep(&store, &key, &new, &raw.bytes, &tags, false)).await?;
        Ok(())
    }

    /// A blob that is not here: joins the download that is under way, or begins one.
    pub async fn blob(&self, store: &Store, name: &Name, digest: &Digest) -> Result<Flight, Refusal> {
        if let Some(flight) = self.under_way(digest) {
            return Ok(flight);
        }
        let size = self.registry.blob_size(&name.wire, digest).await.map_err(Error::from)?;
        let size = size.ok_or_else(|| Refusal::not_found("BLOB_UNKNOWN", format_args!("the blob {digest}")))?;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(digest) {
            return Ok(flight.clone());
        }
        let (sender, stage) = watch::channel(Stage::Waiting);
        let flight = Flight { size, file: Arc::default(), stage };
        flights.insert(digest.clone(), flight.clone());
        let download = Download {
            store: store.clone(),
            registry: self.registry.clone(),
            name: name.clone(),
            descriptor: Descriptor::new("application/octet-stream", digest.clone(), size),
            file: flight.file.clone(),
            sender,
        };
        let (turns, flights, grown) = (self.turns.clone(), self.flights.clone(), self.grown.clone());
        let digest = digest.clone();
        tokio::spawn(async move {
            let _turn = turns.acquire_owned().await;
            download.run().await;
            flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
            grown.notify_one();
        });
        Ok(flight)
    }

    fn under_way(&self, digest: &Digest) -> Option<Flight> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

fn is_fresh(tag: &Tag, now_ms: i64) -> bool {
    let age = now_ms.saturating_sub(tag.checked_at_ms);
    u128::try_from(age).is_ok_and(|age| age < FRESH.as_millis())
}

fn serve_stale(name: &Name, tag: &str, why: &(dyn std::error::Error + 'static)) {
    tracing::warn!(repository = name.wire, tag, error = why, "the upstream does not answer; serving what is here");
}

/// One download.
struct Download {
    store: Store,
    registry: Registry,
    name: Name,
    descriptor: Descriptor,
    file: Arc<Mutex<Option<Arc<File>>>>,
    sender: watch::Sender<Stage>,
}

impl Download {
    async fn run(self) {
        let stage = match self.fetch().await {
            Ok(()) => Stage::Done,
            Err(error) => {
                let digest = &self.descriptor.digest;
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "cannot fetch a blob from the upstream");
                Stage::Failed
            }
        };
        self.sender.send_replace(stage);
    }

    /// Under a lease, the blob is kept until the repository's row holds it.
    async fn fetch(&self) -> Result<()> {
        let lease = Lease::of(&self.store, None).await?;
        let (store, descriptor, id) = (self.store.clone(), self.descriptor.clone(), lease.id().to_owned());
        let ingest = blocking(move || {
            let content = store.content();
            if content.hold(&descriptor.digest, Some(&id))? == Some(descriptor.size) {
                return Ok(None);
            }
            let ingest = content.ingest(&descriptor, Some(&id))?;
            // Another process may have finished it while we waited for the lock.
            match content.hold(&descriptor.digest, Some(&id))? == Some(descriptor.size) {
                true => Ok(None),
                false => Ok(Some(ingest)),
            }
        })
        .await?;
        match ingest {
            None => self.offer(self.store.content().open(&self.descriptor.digest)?),
            Some(mut ingest) => {
                self.offer(ingest.partial()?);
                self.sender.send_replace(Stage::Bytes(ingest.offset()));
                let (registry, repository) = (self.registry.clone(), self.name.wire.clone());
                let stream = fetch::blob(registry, repository, self.descriptor.clone(), ingest.offset());
                let sender = self.sender.clone();
                pump(stream, move |reader| {
                    let mut buffer = vec![0; CHUNK];
                    let path = std::path::Path::new("the upstream's blob");
                    loop {
                        let read = std::io::Read::read(reader, &mut buffer).map_err(Error::io("receive", path))?;
                        if read == 0 {
                            break;
                        }
                        std::io::Write::write_all(&mut ingest, &buffer[..read]).map_err(Error::io("write", path))?;
                        sender.send_replace(Stage::Bytes(ingest.offset()));
                    }
                    ingest.commit()
                })
                .await?;
            }
        }
        let (store, key, digest) = (self.store.clone(), self.name.key.clone(), self.descriptor.digest.clone());
        blocking(move || Catalog(&store).cache_blob(&key, &digest)).await
    }

    fn offer(&self, file: File) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file));
    }
}

impl Flight {
    /// Bytes of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A part of the blob, as fast as it comes. When the download fails, so does the stream.
    pub fn stream(self, begin: u64, length: u64) -> ByteStream {
        let end = begin + length;
        futures::stream::try_unfold((self, begin), move |(mut flight, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let ready = flight.wait(at).await?;
            let file = flight.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let file = file.ok_or_else(broken)?;
            let want = usize::try_from(ready.min(end) - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = blocking(move || {
                let mut buffer = vec![0; want];
                file.read_exact_at(&mut buffer, at).map_err(Error::io("read", "the upstream's blob"))?;
                Ok(Bytes::from(buffer))
            })
            .await?;
            let next = at + chunk.len() as u64;
            Ok(Some((chunk, (flight, next))))
        })
        .boxed()
    }

    /// Waits until there is more than `at` in the file; gives how much there is.
    async fn wait(&mut self, at: u64) -> Result<u64> {
        let size = self.size;
        let stage = self.stage.wait_for(|stage| match stage {
            Stage::Waiting => false,
            Stage::Bytes(bytes) => *bytes > at,
            Stage::Done | Stage::Failed => true,
        });
        match stage.await.map(|stage| *stage) {
            Ok(Stage::Bytes(bytes)) => Ok(bytes),
            Ok(Stage::Done) => Ok(size),
            _ => Err(broken()),
        }
    }
}

fn broken() -> Error {
    Error::Canceled { what: "the download from the upstream failed".into() }
}
