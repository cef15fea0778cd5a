//! Results of steps: chains of layers in the store, or directories of the host.

use oci::Descriptor;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

use crate::fs::ignore::Ignore;
use crate::solve::{Key, KeyWriter};

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: String,
    /// The compressed archive.
    pub descriptor: Descriptor,
    /// Lease of the cache record that made it; empty for layers of base images.
    #[serde(default)]
    pub lease: String,
}

/// Layers, lowest first; empty: an empty filesystem.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain(pub Vec<Layer>);

impl Chain {
    /// Diff IDs, lowest first.
    pub fn diff_ids(&self) -> Vec<String> {
        self.0.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// Identity of the content.
    pub fn key(&self) -> Key {
        KeyWriter::new("chain").fields(self.0.iter().map(|layer| layer.diff_id.as_str())).finish()
    }

    /// The chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Option<Layer>) -> Self {
        Self(self.0.iter().cloned().chain(layer).collect())
    }
}

/// A directory of this host.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Absolute.
    pub path: PathBuf,
    /// What of it does not exist for the build.
    pub ignore: Ignore,
    /// "the build context"
    pub place: String,
}

/// What a step made.
#[derive(Debug, Clone)]
pub enum Output {
    /// A filesystem in the store.
    Layers(Chain),
    /// A directory that is read where it is.
    Directory(Arc<Directory>),
}

impl Output {
    /// The chain; a directory has none.
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Layers(chain) => Some(chain),
            Self::Directory(_) => None,
        }
    }
}
