//! Making and checking signatures.

use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, Reference, media_type};
use serde_json::json;

use super::admit::{check, wanted_name};
use super::evidence::{SIGNATURE, SIGNATURE_ARTIFACT, SIMPLE_SIGNING, signatures, tag};
use super::key::{PrivateKey, PublicKey};
use super::payload::Payload;
use super::{Error, Subject};
use crate::error::Result;
use crate::registry::RawManifest;
use crate::transport::copy::describe;
use crate::transport::made::document;
use crate::transport::{Sink, Source};

/// Where a signature is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The tag `sha256-<hex>.sig` beside the image: what every verifier reads.
    #[default]
    Tag,
    /// A referrer of the image (OCI 1.1).
    Referrer,
}

/// What to sign, and how.
pub struct Sign<'a> {
    /// With this key.
    pub key: &'a PrivateKey,
    /// For this name: `registry/repository[:tag]`.
    pub name: String,
    /// Where it is put.
    pub form: Form,
    /// All manifests of an index, too.
    pub all: bool,
}

/// A signature that counts.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verified {
    /// What is signed.
    pub digest: Digest,
    /// For which name.
    pub name: String,
    /// By which key: its file.
    pub key: String,
    /// Where the signature lies.
    pub place: String,
}

/// Signs what the source's name stands for; the signature goes to the sink. Gives the digests that were signed.
///
/// # Errors
/// Those of both sides; [`Error::NoPlace`] when the sink takes no signatures.
pub async fn sign(source: &dyn Source, sink: &dyn Sink, wanted: &Sign<'_>) -> Result<Vec<Digest>> {
    let root = source.root().await?;
    let mut subjects = vec![root.clone()];
    if let (true, Ok(Document::Index(index))) = (wanted.all, Document::parse(&root.bytes, &root.media_type)) {
        for entry in index.manifests.iter().filter(|entry| source.has(entry)) {
            let mut raw = source.manifest(entry).await?;
            raw.media_type.clone_from(&entry.media_type);
            subjects.push(raw);
        }
    }
    let mut signed = Vec::new();
    for subject in subjects {
        one(source, sink, wanted, &subject).await?;
        signed.push(subject.digest);
    }
    Ok(signed)
}

async fn one(source: &dyn Source, sink: &dyn Sink, wanted: &Sign<'_>, subject: &RawManifest) -> Result<()> {
    let payload = Payload::new(&subject.digest, &wanted.name).to_bytes();
    let signature = wanted.key.sign(&payload);
    let mut layer = Descriptor::of(SIMPLE_SIGNING, &payload);
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    layer.annotations.insert(SIGNATURE.into(), text);
    sink.small(&layer, &payload).await?;
    let tag = tag(&subject.digest, "sig");
    let (manifest, config, tag) = match wanted.form {
        Form::Referrer => {
            let (manifest, config) = referrer(layer, subject);
            (manifest, config, None)
        }
        Form::Tag => {
            let before = match source.sibling(&tag).await? {
                Some(raw) => layers_of(&raw)?,
                None => Vec::new(),
            };
            let (manifest, config) = beside(before, layer);
            (manifest, config, Some(tag))
        }
    };
    sink.small(&manifest.config, &config).await?;
    let raw = document(&manifest, media_type::MANIFEST, "the signature")?;
    match sink.attach(&raw, tag.as_deref()).await? {
        true => Ok(()),
        false => Err(Error::NoPlace { place: source.describe() }.into()),
    }
}

/// The signatures that are there stay.
fn layers_of(raw: &RawManifest) -> Result<Vec<Descriptor>> {
    match Document::parse(&raw.bytes, &raw.media_type) {
        Ok(Document::Manifest(manifest)) => Ok(manifest.layers),
        _ => Err(crate::Error::manifest(raw.digest.to_string(), "it is no manifest of signatures")),
    }
}

/// Under a tag: an image by its form, with a config that lists the payloads as its layers.
fn beside(mut layers: Vec<Descriptor>, new: Descriptor) -> (Manifest, Vec<u8>) {
    layers.push(new);
    let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let history: Vec<_> = layers.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect();
    let config = json!({"architecture": "", "os": "", "created": "0001-01-01T00:00:00Z", "config": {}, "history": history,
        "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = config.to_string().into_bytes();
    (Manifest::new(Descriptor::of(media_type::CONFIG, &config), layers), config)
}

/// As a referrer: an artifact with the image as its subject.
fn referrer(new: Descriptor, subject: &RawManifest) -> (Manifest, Vec<u8>) {
    let config = b"{}".to_vec();
    let mut manifest = Manifest::new(Descriptor::of(SIGNATURE_ARTIFACT, &config), vec![new]);
    manifest.artifact_type = Some(SIGNATURE_ARTIFACT.into());
    manifest.subject = Some(describe(subject));
    (manifest, config)
}

/// Finds a signature by one of the keys for what the source's name stands for. The name in it must be `identity`, or one of the
/// image's repository.
///
/// # Errors
/// [`Error::Unverified`] says what there is instead.
pub async fn verify(
    source: &dyn Source,
    subject: &Subject,
    keys: &[PublicKey],
    identity: Option<&str>,
) -> Result<Verified> {
    let root = source.root().await?;
    let all = signatures(source, &root.digest).await?;
    let reference: Option<&Reference> = subject.reference.as_ref();
    let found = check(&all, keys, &root.digest, wanted_name(identity, reference));
    let (signature, payload, key) = found.map_err(|problem| Error::Unverified {
        image: subject.image.clone(),
        digest: root.digest.clone(),
        problem,
    })?;
    let (name, place) = (payload.name().to_owned(), signature.place.clone());
    Ok(Verified { digest: root.digest, name, key, place })
}
