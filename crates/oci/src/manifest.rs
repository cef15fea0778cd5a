//! Image manifests and indexes. For reading, and for writing new ones; bytes that came from elsewhere are kept as
//! they are, never re-serialised, since their digest is their name.
use crate::{Descriptor, media_type};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An image manifest: one config, its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or docker's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Set for artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A new OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An index: manifests for several platforms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or docker's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Set for artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The entries.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// A new OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::INDEX.into()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// What the bytes of a manifest turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An image manifest.
    Manifest(Manifest),
    /// An index.
    Index(Index),
}

/// Bytes that are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Not JSON, or fields missing.
    #[error("manifest is not valid JSON of its type {media_type}")]
    Json {
        /// The type it was read as.
        media_type: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A type that Pier does not know, or one that contradicts the content.
    #[error("unsupported or ambiguous manifest media type {0:?}")]
    MediaType(String),
}

/// What tells a manifest from an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index. `media_type` comes from the registry or the descriptor; the document's own must
    /// agree with it (CVE-2021-41190: a document that is both is refused).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, InvalidManifest> {
        let json = |source| InvalidManifest::Json { media_type: media_type.into(), source };
        // Only what decides is read first: a tree of a hostile document takes many times its size in memory.
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        let own = head.media_type.as_deref().unwrap_or("");
        let (index, manifest) = (head.manifests.is_some(), head.config.is_some());
        let said = match media_type {
            "" | "application/json" | "application/octet-stream" => own,
            other => other,
        };
        if (!own.is_empty() && own != said) || (index && manifest) {
            return Err(InvalidManifest::MediaType(format!("{said} / {own}")));
        }
        let is_index = media_type::is_index(said) || (said.is_empty() && index);
        let is_manifest = media_type::is_manifest(said) || (said.is_empty() && manifest);
        match (is_index, is_manifest) {
            (true, _) => serde_json::from_slice(bytes).map(Document::Index).map_err(json),
            (_, true) => serde_json::from_slice(bytes).map(Document::Manifest).map_err(json),
            _ => Err(InvalidManifest::MediaType(said.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_documents_are_refused() {
        let both = br#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#;
        assert!(Document::parse(both, "").is_err());
        let lies = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#;
        assert!(Document::parse(lies, media_type::INDEX).is_err());
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse(index, media_type::INDEX), Ok(Document::Index(_))));
        assert!(Document::parse(b"{", media_type::INDEX).is_err());
    }
}
