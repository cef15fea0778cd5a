//! Attestations: in-toto statements about an image, signed (DSSE) under the tag `sha256-<hex>.att` or as referrers, or unsigned in an
//! index, as BuildKit writes them.

use oci::manifest::Document;
use oci::{Descriptor, Digest};
use serde::Serialize;

use super::dsse::{Envelope, Statement};
use super::evidence::manifests;
use super::key::PublicKey;
use crate::error::Result;
use crate::registry::MANIFEST_MAX;
use crate::transport::Source;
use crate::transport::checked::small;

/// Plain statements.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Signed ones.
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// Signed ones in a bundle: "application/vnd.dev.sigstore.bundle.v0.3+json".
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// BuildKit's mark of an index entry that is about another one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A statement about an image.
#[derive(Debug, Clone, Serialize)]
pub struct Attestation {
    /// "https://slsa.dev/provenance/v1", "https://spdx.dev/Document".
    pub predicate_type: String,
    /// What it is about: the image, or a manifest of its index.
    pub subject: Digest,
    /// Whether the statement itself names that digest.
    pub names_subject: bool,
    /// Whether it is in a signed envelope.
    pub signed: bool,
    /// The key that it is signed by, of those that were given.
    pub verified_by: Option<String>,
    /// Where it lies.
    pub place: String,
    /// Its blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size_bytes: u64,
}

/// Lists the statements about what the source's name stands for, each with the key that it is signed by. What cannot be read as a
/// statement is left out.
///
/// # Errors
/// Those of the source.
pub async fn list(source: &dyn Source, keys: &[PublicKey]) -> Result<Vec<Attestation>> {
    let root = source.root().await?;
    let mut all = Vec::new();
    let mut subjects = vec![root.digest.clone()];
    if let Ok(Document::Index(index)) = Document::parse(&root.bytes, &root.media_type) {
        for entry in &index.manifests {
            let mark = entry.annotations.get(REFERENCE_TYPE).map(String::as_str);
            let about = entry.annotations.get(REFERENCE_DIGEST).and_then(|text| text.parse::<Digest>().ok());
            match (mark, about) {
                (Some("attestation-manifest"), Some(about)) => {
                    let mut raw = source.manifest(entry).await?;
                    raw.media_type.clone_from(&entry.media_type);
                    if let Ok(Document::Manifest(manifest)) = Document::parse(&raw.bytes, &raw.media_type) {
                        let place = format!("index {}", entry.digest);
                        read(source, &about, &place, &manifest.layers, keys, &mut all).await?;
                    }
                }
                _ => subjects.push(entry.digest.clone()),
            }
        }
    }
    for subject in subjects {
        for found in manifests(source, &subject, &["att"]).await? {
            read(source, &subject, &found.place, &found.manifest.layers, keys, &mut all).await?;
        }
    }
    Ok(all)
}

async fn read(
    source: &dyn Source,
    subject: &Digest,
    place: &str,
    layers: &[Descriptor],
    keys: &[PublicKey],
    all: &mut Vec<Attestation>,
) -> Result<()> {
    let is_statement = |kind: &str| kind == IN_TOTO || kind == DSSE || kind.starts_with(BUNDLE);
    for layer in layers.iter().filter(|layer| is_statement(&layer.media_type) && layer.size <= MANIFEST_MAX) {
        let bytes = small(source, layer, "signature", &source.describe()).await?;
        let envelope = Envelope::parse(&bytes);
        let statement = match &envelope {
            Some(envelope) => envelope.payload().and_then(|payload| serde_json::from_slice(&payload).ok()),
            None => serde_json::from_slice::<Statement>(&bytes).ok(),
        };
        let Some(statement) = statement else { continue };
        let key = envelope.as_ref().and_then(|envelope| envelope.verified_by(keys));
        all.push(Attestation {
            names_subject: statement.is_about(subject),
            predicate_type: statement.predicate_type,
            subject: subject.clone(),
            signed: envelope.is_some_and(|envelope| envelope.is_signed()),
            verified_by: key.map(|key| key.name.clone()),
            place: place.to_owned(),
            digest: layer.digest.clone(),
            size_bytes: layer.size,
        });
    }
    Ok(())
}
