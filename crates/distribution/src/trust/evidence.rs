//! Signatures and attestations of an image, wherever they lie: under a tag beside it (cosign's older way), or as referrers (OCI 1.1).

use oci::Digest;
use oci::manifest::{Document, Manifest};

use crate::error::Result;
use crate::registry::{MANIFEST_MAX, RawManifest};
use crate::transport::Source;
use crate::transport::checked::small;

/// A layer of this type is a payload; its annotation is the signature.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature in base64.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Referrers with signatures in that form.
pub(super) const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Largest payload of a signature, in bytes.
const PAYLOAD_MAX: u64 = 1 << 20;
/// Most manifests that are looked through for one image.
const MANIFESTS_MAX: usize = 100;

/// A manifest with signatures or attestations.
pub(super) struct Found {
    /// "sha256-….sig", "referrer sha256:…": for messages.
    pub place: String,
    pub manifest: Manifest,
}

/// One signature, not verified.
pub(super) struct Signature {
    pub place: String,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

/// What cosign keeps under tags beside an image: signatures, attestations, bills of materials.
pub(crate) const COMPANIONS: [&str; 3] = ["sig", "att", "sbom"];

/// The tag beside an image: cosign's naming.
pub(crate) fn tag(digest: &Digest, suffix: &str) -> String {
    format!("{}-{}.{suffix}", digest.algorithm(), digest.hex())
}

/// Whether a tag is one that [`tag`] makes.
pub(crate) fn is_companion(tag: &str) -> bool {
    let Some((name, suffix)) = tag.rsplit_once('.') else { return false };
    COMPANIONS.contains(&suffix) && name.replacen('-', ":", 1).parse::<Digest>().is_ok()
}

/// All manifests that belong to the one with this digest: those under the given suffixes' tags, then referrers.
pub(super) async fn manifests(source: &dyn Source, digest: &Digest, suffixes: &[&str]) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for suffix in suffixes {
        let tag = tag(digest, suffix);
        if let Some(raw) = source.sibling(&tag).await? {
            all.extend(found(tag, &raw));
        }
    }
    let referrers = source.referrers(digest).await?;
    for descriptor in referrers.iter().filter(|entry| entry.size <= MANIFEST_MAX).take(MANIFESTS_MAX) {
        let raw = source.manifest(descriptor).await?;
        all.extend(found(format!("referrer {}", descriptor.digest), &raw));
    }
    Ok(all)
}

/// What is no manifest has no signatures.
fn found(place: String, raw: &RawManifest) -> Option<Found> {
    match Document::parse(&raw.bytes, &raw.media_type) {
        Ok(Document::Manifest(manifest)) => Some(Found { place, manifest }),
        _ => None,
    }
}

/// The signatures with keys of a manifest.
pub(super) async fn signatures(source: &dyn Source, digest: &Digest) -> Result<Vec<Signature>> {
    let mut all = Vec::new();
    for found in manifests(source, digest, &["sig"]).await? {
        let layers = found.manifest.layers.iter().filter(|layer| layer.media_type == SIMPLE_SIGNING);
        for layer in layers.take(MANIFESTS_MAX) {
            let text = layer.annotations.get(SIGNATURE).map(String::as_str).unwrap_or_default();
            let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text);
            if let (Ok(signature), true) = (decoded, layer.size <= PAYLOAD_MAX) {
                let payload = small(source, layer, "signature", &source.describe()).await?;
                all.push(Signature { place: found.place.clone(), payload, signature });
            }
        }
    }
    Ok(all)
}
