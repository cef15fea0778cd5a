//! The Dockerfile frontend: text → [lines](lex) → [instructions](parse) → [stages](plan) → [LLB](lower).
//!
//! All of it is pure. The one thing it needs from outside are the configurations of base images: [`plan::Plan`] says
//! which, the caller fetches them, [`lower::lower`] goes on.

mod arguments;
pub mod diagnostic;
pub mod expand;
mod files;
mod flags;
pub mod instruction;
pub mod lex;
pub mod lower;
mod metadata;
mod mount;
pub mod parse;
pub mod plan;
mod run;
mod stage;

pub use diagnostic::{Diagnostic, Problem};
pub use lower::{HistoryEntry, Lowered, lower};
pub use parse::{Dockerfile, parse};
pub use plan::{ImageRequest, Plan, plan};

use oci::{ImageConfig, Platform};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the person who builds asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stage to build, by name or number; none: the last.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// What to build for.
    pub platform: Platform,
    /// What to build on.
    pub host: Platform,
    /// Directories and images that have a name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// RUN without a network.
    pub no_network: bool,
    /// No step comes from the cache.
    pub no_cache: bool,
    /// `host`, `ip` for RUN.
    pub extra_hosts: Vec<(String, String)>,
    /// Patterns of `.dockerignore`.
    pub excludes: Vec<String>,
}

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this host.
    Directory(PathBuf),
    /// An image.
    Image(String),
}

/// An image that a Dockerfile names, found in the store.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// With the manifest's digest: `docker.io/library/busybox:latest@sha256:…`.
    pub pinned: String,
    /// Its configuration.
    pub config: ImageConfig,
}

/// The images that were found, by what was asked for.
pub type Images = BTreeMap<ImageRequest, ResolvedImage>;
