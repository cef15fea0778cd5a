//! The same images in another form: layers compressed in another way, documents of OCI's or docker's types. Diff IDs, and with
//! them the configs, stay as they are; what does not change is kept byte for byte, unknown fields of what does are kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use oci::manifest::{Document, Index, Manifest};
use oci::{Descriptor, Digest, media_type};
use serde_json::Value;

use super::Source;
use super::checked::Checked;
use super::copy::{DEPTH_MAX, Select, describe, fetch, image_of, parse};
use super::made::{Made, Part, document};
use super::pump::pump;
use crate::error::{Error, Result};
use crate::layer::{Compression, Hashing, recompress};
use crate::progress::Reporter;
use crate::registry::RawManifest;

/// Layers that are compressed at once.
const PARALLEL: usize = 2;
/// Annotations that tell where in the compressed bytes things are: untrue after another compression.
const OF_BYTES: [&str; 2] = ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/"];

/// Whose types documents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI's: `application/vnd.oci.image.*`.
    Oci,
    /// Docker's: schema 2, manifest lists. It knows no annotations, no zstd and no artifacts.
    Docker,
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "oci" => Ok(Self::Oci),
            "v2s2" | "docker" => Ok(Self::Docker),
            other => {
                let problem = "there are: oci, v2s2".into();
                Err(Error::NameInvalid { what: "manifest format", name: other.into(), problem })
            }
        }
    }
}

/// What changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recast {
    /// Of layers; none: as they are.
    pub compression: Option<Compression>,
    /// Of the compression; its meaning is the compressor's. Alone, it compresses gzip and zstd layers anew.
    pub level: Option<i32>,
    /// None: as they are; zstd layers need OCI's.
    pub format: Option<Format>,
}

impl Recast {
    /// Refuses a level that the compressor does not have.
    ///
    /// # Errors
    /// [`Error::NameInvalid`].
    pub fn check(&self) -> Result<()> {
        let (levels, problem) = match self.compression {
            Some(Compression::Zstd) => (1..23, "zstd has the levels 1 to 22"),
            Some(Compression::None) => (0..0, "without compression there is no level"),
            Some(Compression::Gzip) | None => (0..10, "gzip has the levels 0 to 9"),
        };
        match self.level {
            Some(level) if !levels.contains(&level) => {
                Err(Error::NameInvalid { what: "compression level", name: level.to_string(), problem: problem.into() })
            }
            _ => Ok(()),
        }
    }

    /// Nothing changes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes the images of `source` anew. Changed layers lie in unnamed files of `scratch` until the result is dropped.
///
/// # Errors
/// The source's; [`Error::ManifestInvalid`] for what the wanted format cannot say; [`Error::Io`].
pub async fn recast(
    source: Arc<dyn Source>,
    select: &Select,
    how: Recast,
    scratch: &Path,
    reporter: &Reporter,
) -> Result<Made> {
    let what = source.describe();
    let root = source.root().await?;
    let mut job = Job {
        source: source.clone(),
        what,
        how,
        scratch: scratch.to_owned(),
        reporter,
        layers: HashMap::new(),
        manifests: Vec::new(),
    };
    let root = job.root(root, select).await?;
    let mut made = Made::new(job.what, root).over(source);
    for raw in job.manifests {
        made.put(raw);
    }
    for (descriptor, file) in job.layers.into_values().flatten() {
        made.part(&descriptor.digest, Part::Spool(file));
    }
    Ok(made)
}

struct Job<'a> {
    source: Arc<dyn Source>,
    what: String,
    how: Recast,
    scratch: PathBuf,
    reporter: &'a Reporter,
    /// What a layer became; `None`: it stays.
    layers: HashMap<Digest, Option<(Descriptor, Arc<File>)>>,
    manifests: Vec<RawManifest>,
}

impl Job<'_> {
    async fn root(&mut self, root: RawManifest, select: &Select) -> Result<RawManifest> {
        match (parse(&root, &self.what)?, select) {
            (Document::Manifest(manifest), _) => self.image(root, &manifest).await,
            (Document::Index(index), Select::All) => self.index(root, &index, 1).await,
            (Document::Index(index), Select::Platform(platform)) => {
                let (raw, manifest) = image_of(self.source.as_ref(), &self.what, &index, platform).await?;
                self.image(raw, &manifest).await
            }
        }
    }

    fn refuse(&self, problem: impl ToString) -> Error {
        Error::manifest(&self.what, problem)
    }

    fn index<'b>(&'b mut self, raw: RawManifest, index: &'b Index, depth: usize) -> BoxFuture<'b, Result<RawManifest>> {
        async move {
            if depth > DEPTH_MAX {
                return Err(self.refuse("its indexes are nested too deeply"));
            }
            let source = self.source.clone();
            let mut became = HashMap::new();
            let mut entries = Vec::new();
            for entry in index.manifests.iter().filter(|entry| source.has(entry)) {
                let old = fetch(source.as_ref(), entry, &self.what).await?;
                let new = match parse(&old, &self.what)? {
                    Document::Manifest(manifest) => self.image(old, &manifest).await?,
                    Document::Index(nested) => self.index(old, &nested, depth + 1).await?,
                };
                became.insert(entry.digest.clone(), describe(&new));
                entries.push(entry.clone());
                self.manifests.push(new);
            }
            let same = entries.len() == index.manifests.len() && became.iter().all(|(old, new)| *old == new.digest);
            let media_type = index_type(&raw.media_type, self.how.format);
            if same && media_type == raw.media_type {
                return Ok(raw);
            }
            let mut value = value_of(&raw, &self.what)?;
            value["manifests"] = changed_entries(&value["manifests"], &became);
            self.finish(value, media_type, &[])
        }
        .boxed()
    }

    async fn image(&mut self, raw: RawManifest, manifest: &Manifest) -> Result<RawManifest> {
        self.compress(manifest).await?;
        let zstd = manifest.layers.iter().any(|layer| {
            let became = self.layers.get(&layer.digest).and_then(Option::as_ref);
            became.map_or(&layer.media_type, |(new, _)| &new.media_type).ends_with("+zstd")
        });
        let own = describe(&raw).media_type;
        let format = self.how.format.or((zstd && own == media_type::DOCKER_MANIFEST).then_some(Format::Oci));
        let changes = manifest.layers.iter().any(|layer| self.layers.get(&layer.digest).is_some_and(Option::is_some));
        let media_type = match format {
            Some(Format::Oci) => media_type::MANIFEST,
            Some(Format::Docker) => media_type::DOCKER_MANIFEST,
            None => &own,
        };
        if !changes && media_type == own {
            return Ok(raw);
        }
        if format == Some(Format::Docker) {
            self.check_docker(manifest, zstd)?;
        }
        let mut value = value_of(&raw, &self.what)?;
        for layer in value["layers"].as_array_mut().into_iter().flatten() {
            self.change_layer(layer, media_type == media_type::DOCKER_MANIFEST);
        }
        let config = &mut value["config"]["mediaType"];
        if media_type::is_config(config.as_str().unwrap_or_default()) {
            *config = match media_type {
                media_type::DOCKER_MANIFEST => media_type::DOCKER_CONFIG.into(),
                _ => media_type::CONFIG.into(),
            };
        }
        let dropped: &[&str] = if format == Some(Format::Docker) { &["annotations", "artifactType"] } else { &[] };
        let media_type = media_type.to_owned();
        self.finish(value, &media_type, dropped)
    }

    fn check_docker(&self, manifest: &Manifest, zstd: bool) -> Result<()> {
        if !media_type::is_config(&manifest.config.media_type) || manifest.subject.is_some() {
            return Err(self.refuse("docker's format has no artifacts and no subjects"));
        }
        if zstd {
            return Err(self.refuse("docker's format has no zstd layers; compress them with gzip"));
        }
        Ok(())
    }

    fn finish(&self, mut value: Value, media_type: &str, dropped: &[&str]) -> Result<RawManifest> {
        value["mediaType"] = media_type.into();
        if let Some(map) = value.as_object_mut() {
            dropped.iter().for_each(|key| drop(map.shift_remove(*key)));
        }
        document(&value, media_type, &self.what)
    }

    fn change_layer(&self, layer: &mut Value, docker: bool) {
        let digest = layer["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
        if let Some(Some((new, _))) = digest.and_then(|digest| self.layers.get(&digest)) {
            layer["mediaType"] = new.media_type.clone().into();
            layer["digest"] = new.digest.to_string().into();
            layer["size"] = new.size.into();
            if let Some(annotations) = layer.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| !OF_BYTES.iter().any(|prefix| key.starts_with(prefix)));
            }
        }
        let own = layer["mediaType"].as_str().unwrap_or_default();
        layer["mediaType"] = layer_type(own, docker).into();
        if docker && let Some(map) = layer.as_object_mut() {
            map.shift_remove("annotations");
        }
    }

    /// Compresses the layers of a manifest that are not yet as wanted.
    async fn compress(&mut self, manifest: &Manifest) -> Result<()> {
        let new: Vec<(Descriptor, Compression)> = manifest
            .layers
            .iter()
            .filter(|layer| !self.layers.contains_key(&layer.digest))
            .filter_map(|layer| Some((layer.clone(), self.wanted(layer)?)))
            .collect();
        let (source, how) = (self.source.clone(), self.how);
        let (scratch, reporter) = (self.scratch.clone(), self.reporter);
        let jobs = new.into_iter().map(|(layer, compression)| {
            let to = (compression, how.level);
            layer_anew(source.as_ref(), layer, to, &scratch, reporter)
        });
        let done: Vec<_> = futures::stream::iter(jobs).buffer_unordered(PARALLEL).try_collect().await?;
        self.layers.extend(done);
        Ok(())
    }

    /// The compression that a layer gets; none when it stays.
    fn wanted(&self, layer: &Descriptor) -> Option<Compression> {
        let foreign = layer.media_type.contains("nondistributable") || layer.media_type.contains(".foreign.");
        if foreign || !media_type::is_layer(&layer.media_type) {
            return None;
        }
        let now = match layer.media_type.rsplit_once(['+', '.']).map_or("", |(_, suffix)| suffix) {
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        };
        match (self.how.compression, self.how.level) {
            (Some(wanted), _) if wanted != now => Some(wanted),
            (_, Some(_)) if now != Compression::None => Some(now),
            _ => None,
        }
    }
}

type Anew = (Digest, Option<(Descriptor, Arc<File>)>);

async fn layer_anew(
    source: &dyn Source,
    layer: Descriptor,
    (compression, level): (Compression, Option<i32>),
    scratch: &Path,
    reporter: &Reporter,
) -> Result<Anew> {
    let track = reporter.track(layer.digest.short(), layer.size);
    let counted = track.clone();
    let stream = source.open(&layer, 0).await?.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            counted.add("compressing", chunk.len() as u64);
        }
    });
    let (old, dir) = (layer.clone(), scratch.to_owned());
    let (descriptor, file) = pump(stream.boxed(), move |reader| {
        let spool = tempfile::tempfile_in(&dir).map_err(Error::io("create a file in", &dir))?;
        let mut from = Checked::new(reader, &old.digest);
        let mut out = Hashing::new(BufWriter::with_capacity(256 << 10, spool));
        recompress(&mut from, &old, &mut out, compression, level)?;
        io::copy(&mut from, &mut io::sink()).map_err(|source| Error::BlobRead { source })?;
        from.verify(&old.digest)?;
        let (out, digest, size) = out.finish();
        let file = out.into_inner().map_err(|e| Error::io("write a file in", &dir)(e.into_error()))?;
        let mut new = Descriptor::new(compression.media_type(), digest, size);
        new.annotations = old.annotations;
        Ok((new, Arc::new(file)))
    })
    .await?;
    track.finish("done");
    Ok((layer.digest, Some((descriptor, file))))
}

fn value_of(raw: &RawManifest, what: &str) -> Result<Value> {
    serde_json::from_slice(&raw.bytes).map_err(|e| Error::manifest(what, e))
}

fn index_type(own: &str, format: Option<Format>) -> &str {
    match format {
        Some(Format::Oci) => media_type::INDEX,
        Some(Format::Docker) => media_type::DOCKER_INDEX,
        None if own.is_empty() => media_type::INDEX,
        None => own,
    }
}

/// Entries with the new digests; an annotation that is an old digest (BuildKit ties attestations so) becomes the new one.
fn changed_entries(entries: &Value, became: &HashMap<Digest, Descriptor>) -> Value {
    let new_of = |text: Option<&str>| text.and_then(|text| text.parse::<Digest>().ok()).and_then(|d| became.get(&d));
    let mut kept = Vec::new();
    for entry in entries.as_array().into_iter().flatten() {
        let Some(new) = new_of(entry["digest"].as_str()) else { continue };
        let mut entry = entry.clone();
        entry["mediaType"] = new.media_type.clone().into();
        entry["digest"] = new.digest.to_string().into();
        entry["size"] = new.size.into();
        for (_, value) in entry.get_mut("annotations").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(new) = new_of(value.as_str()) {
                *value = new.digest.to_string().into();
            }
        }
        kept.push(entry);
    }
    Value::Array(kept)
}

/// A layer's type in the other family; one that has no twin stays.
fn layer_type(own: &str, docker: bool) -> &str {
    const TWINS: [(&str, &str); 4] = [
        (media_type::LAYER, media_type::DOCKER_LAYER),
        (media_type::LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ),
    ];
    let twin = match docker {
        true => TWINS.iter().find(|(oci, _)| *oci == own).map(|(_, docker)| *docker),
        false => TWINS.iter().find(|(_, docker)| *docker == own).map(|(oci, _)| *oci),
    };
    twin.unwrap_or(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transport::pump::collect;

    fn image(layer_type: &str, layer: &[u8], extra: &str) -> Made {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
        let of = |kind: &str, bytes: &[u8]| serde_json::to_string(&Descriptor::of(kind, bytes)).unwrap();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{extra}}}"#,
            media_type::MANIFEST,
            of(media_type::CONFIG, config),
            of(layer_type, layer),
        );
        let raw = RawManifest::of(media_type::MANIFEST, text.into());
        let mut made = Made::new("it", raw);
        made.part(&Digest::of(config), Part::Bytes(config.to_vec()));
        made.part(&Digest::of(layer), Part::Bytes(layer.to_vec()));
        made
    }

    async fn cast(made: Made, how: Recast) -> Result<(Made, Value)> {
        let dir = tempfile::tempdir().unwrap();
        let made = recast(Arc::new(made), &Select::All, how, dir.path(), &Reporter::silent()).await?;
        let value = serde_json::from_slice(&made.root().await?.bytes).unwrap();
        Ok((made, value))
    }

    #[tokio::test]
    async fn layers_change_their_compression_and_nothing_else() {
        let plain = b"not quite a tar".repeat(1000);
        let how = Recast { compression: Some(Compression::Zstd), ..Recast::default() };
        let (made, value) = cast(image(media_type::LAYER, &plain, r#","future":{"kept":1}"#), how).await.unwrap();
        let layer: Descriptor = serde_json::from_value(value["layers"][0].clone()).unwrap();
        assert_eq!((layer.media_type.as_str(), &value["future"]["kept"]), (media_type::LAYER_ZSTD, &1.into()));
        let bytes = collect(made.open(&layer, 0).await.unwrap(), "it", layer.size).await.unwrap();
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), plain);
        let again = cast(made, how).await.unwrap().1;
        assert_eq!(again, value, "what is as wanted stays, byte for byte");
    }

    #[tokio::test]
    async fn dockers_format_says_what_it_can_and_refuses_the_rest() {
        let docker = Recast { format: Some(Format::Docker), ..Recast::default() };
        let (made, value) = cast(image(media_type::LAYER, b"x", r#","annotations":{"a":"b"}"#), docker).await.unwrap();
        assert_eq!(value["mediaType"], media_type::DOCKER_MANIFEST);
        assert_eq!(value["config"]["mediaType"], media_type::DOCKER_CONFIG);
        assert_eq!(value["layers"][0]["mediaType"], media_type::DOCKER_LAYER);
        assert!(value.get("annotations").is_none());
        let oci = Recast { format: Some(Format::Oci), ..Recast::default() };
        assert_eq!(cast(made, oci).await.unwrap().1["layers"][0]["mediaType"], media_type::LAYER);
        let zstd = image(media_type::LAYER_ZSTD, &zstd::encode_all(&b"x"[..], 1).unwrap(), "");
        assert!(cast(zstd, docker).await.err().unwrap().to_string().contains("zstd"));
    }

    #[tokio::test]
    async fn a_damaged_layer_is_not_passed_on() {
        let mut made = image(media_type::LAYER, b"right", "");
        made.part(&Digest::of(b"right"), Part::Bytes(b"wrong".to_vec()));
        let how = Recast { compression: Some(Compression::Gzip), ..Recast::default() };
        assert!(matches!(cast(made, how).await, Err(Error::DigestMismatch { .. })));
    }

    #[test]
    fn ties_between_entries_follow() {
        let (old, new) = (Digest::of(b"old"), Descriptor::of(media_type::MANIFEST, b"new"));
        let entries =
            serde_json::json!([{"digest": old, "size": 1, "annotations": {"vnd.docker.reference.digest": old}}]);
        let changed = changed_entries(&entries, &HashMap::from([(old, new.clone())]));
        assert_eq!(changed[0]["annotations"]["vnd.docker.reference.digest"], new.digest.as_str());
    }
}
