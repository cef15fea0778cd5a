//! From any source to any sink: which manifests, in which order, how many blobs at once.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use oci::manifest::{Document, Index, Manifest};
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};

use super::checked::small;
use super::referrers::Attached;
use super::{Layer, Sink, Source};
use crate::error::{Error, Result};
use crate::progress::Reporter;
use crate::registry::{LAYERS_MAX, MANIFEST_MAX, RawManifest};

/// Four big layers at once, or sixteen small ones: a big one keeps a processor and some memory busy, a small one waits
/// for answers and for the disk.
const PARALLEL: usize = 16;
const BIG: (u64, usize) = (1 << 20, 4);
/// Deepest nesting of indexes.
pub(crate) const DEPTH_MAX: usize = 4;
/// Most manifests below one name.
const MANIFESTS_MAX: usize = 1000;

/// Which images of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The best for a platform.
    Platform(Platform),
    /// All that the source has.
    All,
}

/// An image that was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// What the name stands for at the sink: an index or a manifest.
    pub root: RawManifest,
    /// Each image, the best one for the platform first.
    pub images: Vec<CopiedImage>,
    /// What belongs to them and came along; see [`transfer`](super::referrers::transfer).
    pub attached: Vec<Attached>,
}

/// One manifest with what it names.
#[derive(Debug, Clone)]
pub struct CopiedImage {
    /// The manifest's descriptor, with the platform from the index, if there was one.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config; none for artifacts.
    pub config: Option<ImageConfig>,
}

/// Copies an image. At the end the sink's name stands for it.
///
/// # Errors
/// The source's and the sink's; [`Error::ManifestInvalid`], [`Error::PlatformMissing`].
pub async fn copy(source: &dyn Source, sink: &dyn Sink, select: &Select, reporter: &Reporter) -> Result<Copied> {
    let copied = bring(source, source.root().await?, sink, select, reporter).await?;
    sink.finish(&copied.root).await?;
    Ok(copied)
}

/// Copies what begins at a manifest of the source. The sink has it then, under no name.
pub(crate) async fn bring(
    source: &dyn Source,
    mut root: RawManifest,
    sink: &dyn Sink,
    select: &Select,
    reporter: &Reporter,
) -> Result<Copied> {
    let what = source.describe();
    // A directory does not say what it holds, and a registry may say anything.
    root.media_type = describe(&root).media_type;
    reporter.say(root.digest.short(), "resolved", what.clone());
    for note in source.notes().await {
        reporter.say(root.digest.short(), "note", note);
    }
    let job = Job { source, sink, reporter, what: &what };
    let (root, images) = match parse(&root, &what)? {
        Document::Manifest(manifest) => {
            let image = job.image(&root, manifest, None).await?;
            (root, vec![image])
        }
        Document::Index(index) => job.index(root, &index, select).await?,
    };
    Ok(Copied { root, images, attached: Vec::new() })
}

/// Reads a manifest's bytes and refuses what no image can be.
///
/// # Errors
/// [`Error::ManifestInvalid`].
pub fn parse(raw: &RawManifest, what: &str) -> Result<Document> {
    let text: &str = &raw.media_type;
    if text.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err(Error::manifest(
            what,
            "docker's schema 1 is not supported; push the image again with a newer tool",
        ));
    }
    let document = Document::parse(&raw.bytes, text).map_err(|e| Error::manifest(what, chain(&e)))?;
    match &document {
        Document::Manifest(manifest) if manifest.layers.len() > LAYERS_MAX => {
            Err(Error::manifest(what, format!("{} layers, at most {LAYERS_MAX} are allowed", manifest.layers.len())))
        }
        Document::Index(index) if index.manifests.len() > MANIFESTS_MAX => Err(Error::manifest(
            what,
            format!("{} entries, at most {MANIFESTS_MAX} are allowed", index.manifests.len()),
        )),
        _ => Ok(document),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The descriptor of a manifest at hand.
#[must_use]
pub fn describe(raw: &RawManifest) -> Descriptor {
    let document = Document::parse(&raw.bytes, &raw.media_type).ok();
    let (own, fallback) = match &document {
        Some(Document::Index(index)) => (index.media_type.as_deref(), media_type::INDEX),
        Some(Document::Manifest(manifest)) => (manifest.media_type.as_deref(), media_type::MANIFEST),
        None => (None, media_type::MANIFEST),
    };
    let media_type = own.unwrap_or(match raw.media_type.as_str() {
        known if media_type::is_index(known) || media_type::is_manifest(known) => known,
        _ => fallback,
    });
    Descriptor::new(media_type, raw.digest.clone(), raw.bytes.len() as u64)
}

struct Job<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    reporter: &'a Reporter,
    what: &'a str,
}

impl Job<'_> {
    async fn index(
        &self,
        root: RawManifest,
        index: &Index,
        select: &Select,
    ) -> Result<(RawManifest, Vec<CopiedImage>)> {
        match select {
            Select::All => {
                let mut images = Vec::new();
                self.everything(index, 1, &mut images).await?;
                if images.is_empty() {
                    return Err(Error::manifest(self.what, "none of its images is there"));
                }
                images.sort_by_key(|image| rank_of(&Platform::host(), &image.descriptor).unwrap_or(u8::MAX));
                self.sink.manifest(&root).await?;
                Ok((root, images))
            }
            Select::Platform(platform) => {
                let mut path = Vec::new();
                let descriptor = choose(self.source, self.what, index, platform, &mut path).await?;
                let raw = self.fetch(&descriptor).await?;
                let Document::Manifest(manifest) = parse(&raw, self.what)? else {
                    return Err(Error::manifest(self.what, "an index where a manifest is expected"));
                };
                let image = self.image(&raw, manifest, descriptor.platform.clone()).await?;
                if !self.sink.takes_partial_index() {
                    return Ok((raw, vec![image]));
                }
                for nested in &path {
                    self.sink.manifest(nested).await?;
                }
                self.sink.manifest(&root).await?;
                Ok((root, vec![image]))
            }
        }
    }

    fn everything<'b>(
        &'b self,
        index: &'b Index,
        depth: usize,
        images: &'b mut Vec<CopiedImage>,
    ) -> BoxFuture<'b, Result<()>> {
        async move {
            if depth > DEPTH_MAX {
                return Err(Error::manifest(self.what, "its indexes are nested too deeply"));
            }
            for entry in index.manifests.iter().filter(|entry| self.source.has(entry)) {
                let raw = self.fetch(entry).await?;
                match parse(&raw, self.what)? {
                    Document::Manifest(manifest) => {
                        images.push(self.image(&raw, manifest, entry.platform.clone()).await?);
                    }
                    Document::Index(nested) => {
                        self.everything(&nested, depth + 1, images).await?;
                        self.sink.manifest(&raw).await?;
                    }
                }
                if images.len() > MANIFESTS_MAX {
                    return Err(Error::manifest(self.what, "it names too many images"));
                }
            }
            Ok(())
        }
        .boxed()
    }

    /// What the destination has need not be asked for.
    async fn fetch(&self, entry: &Descriptor) -> Result<RawManifest> {
        match self.sink.at_hand(entry) {
            Some(bytes) if bytes.len() as u64 == entry.size => {
                Ok(RawManifest { bytes, media_type: entry.media_type.clone(), digest: entry.digest.clone() })
            }
            _ => fetch(self.source, entry, self.what).await,
        }
    }

    /// One manifest: config first, since it tells the diff IDs, then all layers at once, then the manifest.
    async fn image(&self, raw: &RawManifest, manifest: Manifest, platform: Option<Platform>) -> Result<CopiedImage> {
        let config = self.config(&manifest).await?;
        let diff_ids: Vec<Option<&Digest>> = match &config {
            Some(config) => config.rootfs.diff_ids.iter().map(Some).collect(),
            None => vec![None; manifest.layers.len()],
        };
        let mut queue: Vec<_> = manifest.layers.iter().zip(diff_ids).collect();
        // The biggest first, so that none of them is left to run alone at the end.
        queue.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
        let mut queue = queue.into_iter().peekable();
        let mut running = FuturesUnordered::new();
        let mut busy = 0;
        let mut seen = std::collections::HashSet::new();
        loop {
            while let Some((descriptor, diff_id)) = queue.next_if(|(layer, _)| busy + cost(layer) <= PARALLEL) {
                // Some builders repeat an empty layer many times.
                if seen.insert(descriptor.digest.clone()) {
                    busy += cost(descriptor);
                    running.push(async move { self.layer(descriptor, diff_id).await.map(|()| cost(descriptor)) });
                }
            }
            match running.next().await {
                Some(result) => busy -= result?,
                None => break,
            }
        }
        drop(running);
        self.sink.manifest(raw).await?;
        let mut descriptor = describe(raw);
        descriptor.platform = platform.or_else(|| config.as_ref().map(ImageConfig::platform));
        Ok(CopiedImage { descriptor, manifest, config })
    }

    async fn layer(&self, descriptor: &Descriptor, diff_id: Option<&Digest>) -> Result<()> {
        let track = self.reporter.track(descriptor.digest.short(), descriptor.size);
        self.sink.layer(self.source, Layer { descriptor, diff_id, track: &track }).await
    }

    async fn config(&self, manifest: &Manifest) -> Result<Option<ImageConfig>> {
        let descriptor = &manifest.config;
        if descriptor.size > MANIFEST_MAX {
            return Err(Error::manifest(self.what, format!("a config of {} bytes", descriptor.size)));
        }
        // What another pull is fetching at this moment is not fetched twice.
        let _turn = match self.sink.at_hand(descriptor) {
            Some(_) => None,
            None => self.sink.turn(descriptor).await?,
        };
        let bytes = match self.sink.at_hand(descriptor) {
            Some(bytes) => bytes,
            None => small(self.source, descriptor, "config", self.what).await?,
        };
        let config = match media_type::is_config(&descriptor.media_type) {
            true => Some(read_config(&bytes, manifest, self.what)?),
            false => None,
        };
        self.sink.small(descriptor, &bytes).await?;
        Ok(config)
    }
}

/// How much of [`PARALLEL`] a layer takes.
fn cost(layer: &Descriptor) -> usize {
    if layer.size < BIG.0 { 1 } else { BIG.1 }
}

/// Reads a manifest that an index lists, within the limits, and checks its size.
///
/// # Errors
/// The source's; [`Error::ManifestInvalid`].
pub async fn fetch(source: &dyn Source, entry: &Descriptor, what: &str) -> Result<RawManifest> {
    if entry.size > MANIFEST_MAX {
        return Err(Error::manifest(what, format!("a manifest of {} bytes", entry.size)));
    }
    let mut raw = source.manifest(entry).await?;
    if raw.bytes.len() as u64 != entry.size {
        let problem = format!("{} has {} bytes, the index says {}", entry.digest, raw.bytes.len(), entry.size);
        return Err(Error::manifest(what, problem));
    }
    // The index is bound by its digest; what the registry says on the way is not.
    raw.media_type.clone_from(&entry.media_type);
    Ok(raw)
}

/// Finds the best manifest for a platform, also in nested indexes; these are left in `path`, the innermost first.
///
/// # Errors
/// The source's; [`Error::PlatformMissing`].
pub async fn choose(
    source: &dyn Source,
    what: &str,
    index: &Index,
    platform: &Platform,
    path: &mut Vec<RawManifest>,
) -> Result<Descriptor> {
    Choice { source, what, platform }.within(index, path, 1).await
}

/// The image of an index for a platform: [`choose`], read.
///
/// # Errors
/// Those of [`choose`]; [`Error::ManifestInvalid`].
pub async fn image_of(
    source: &dyn Source,
    what: &str,
    index: &Index,
    platform: &Platform,
) -> Result<(RawManifest, Manifest)> {
    let entry = choose(source, what, index, platform, &mut Vec::new()).await?;
    let raw = fetch(source, &entry, what).await?;
    match parse(&raw, what)? {
        Document::Manifest(manifest) => Ok((raw, manifest)),
        Document::Index(_) => Err(Error::manifest(what, "an index where a manifest is expected")),
    }
}

struct Choice<'a> {
    source: &'a dyn Source,
    what: &'a str,
    platform: &'a Platform,
}

impl Choice<'_> {
    fn within<'b>(
        &'b self,
        index: &'b Index,
        path: &'b mut Vec<RawManifest>,
        depth: usize,
    ) -> BoxFuture<'b, Result<Descriptor>> {
        async move {
            if let Some(found) = best(index, self.platform) {
                return Ok(found.clone());
            }
            for entry in index.manifests.iter().filter(|entry| media_type::is_index(&entry.media_type)) {
                if depth >= DEPTH_MAX {
                    return Err(Error::manifest(self.what, "its indexes are nested too deeply"));
                }
                let raw = fetch(self.source, entry, self.what).await?;
                let Document::Index(nested) = parse(&raw, self.what)? else { continue };
                match self.within(&nested, path, depth + 1).await {
                    Ok(found) => {
                        path.push(raw);
                        return Ok(found);
                    }
                    Err(Error::PlatformMissing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let list: Vec<String> =
                index.manifests.iter().filter_map(|m| m.platform.as_ref()).map(ToString::to_string).collect();
            Err(Error::PlatformMissing {
                what: self.what.into(),
                platform: self.platform.to_string(),
                available: list.join(", "),
            })
        }
        .boxed()
    }
}

/// Reads an image config and checks it against the manifest.
///
/// # Errors
/// [`Error::ManifestInvalid`].
pub fn read_config(bytes: &[u8], manifest: &Manifest, what: &str) -> Result<ImageConfig> {
    let config: ImageConfig =
        serde_json::from_slice(bytes).map_err(|e| Error::manifest(what, format!("its config is not valid: {e}")))?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::manifest(what, format!("{layers} layers, but {diff_ids} diff IDs in its config")));
    }
    Ok(config)
}

/// The best entry of an index for a platform; the first of equals.
#[must_use]
pub fn best<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let images = index.manifests.iter().filter(|entry| !media_type::is_index(&entry.media_type));
    let ranked = images.filter_map(|entry| rank_of(platform, entry).map(|rank| (rank, entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

fn rank_of(wanted: &Platform, entry: &Descriptor) -> Option<u8> {
    match &entry.platform {
        Some(have) => wanted.match_rank(have),
        // An entry without a platform serves when nothing else does.
        None => Some(u8::MAX - 1),
    }
}
