//! What is to run: the durable part of a container's record. Values only.

use std::collections::BTreeMap;

use oci::shim::RootfsMount;
use serde::{Deserialize, Serialize};

/// When a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Never.
    #[default]
    No,
    /// Whenever it exits, unless a user stopped it.
    Always,
    /// When its exit code is not 0.
    OnFailure,
    /// As always.
    UnlessStopped,
}

/// Restart policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When.
    pub mode: RestartMode,
    /// For on-failure; 0: no limit.
    pub max_retries: u32,
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// "json-file" or "none".
    pub driver: String,
    /// "max-size", "max-file".
    pub options: BTreeMap<String, String>,
}

/// Docker's health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// ["NONE"], ["CMD", ...], ["CMD-SHELL", "..."].
    pub test: Vec<String>,
    /// Nanoseconds.
    pub interval_ns: i64,
    /// Nanoseconds.
    pub timeout_ns: i64,
    /// Nanoseconds.
    pub start_period_ns: i64,
    /// Failures in a row until unhealthy.
    pub retries: u32,
}

/// A file that is bind-mounted over one of the container's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InjectedFile {
    /// Absolute, in the container.
    pub target: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Permission bits; 0: 0644.
    pub mode: u32,
}

/// What somebody above keeps here; opaque.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// "pier.engine/v1".
    #[serde(rename = "type")]
    pub kind: String,
    /// Any bytes.
    #[serde(with = "bytes_as_base64")]
    pub value: Vec<u8>,
}

/// spec.json.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// 64 hex digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// In order, targets relative to the rootfs.
    pub rootfs: Vec<RootfsMount>,
    /// Resolved at each start.
    pub user: String,
    /// Resolved at each start.
    pub additional_groups: Vec<String>,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub image: String,
    /// Changeable.
    pub restart: RestartPolicy,
    /// Output.
    pub log: LogConfig,
    /// Name or number; empty: SIGTERM.
    pub stop_signal: String,
    /// 0: 10.
    pub stop_timeout_seconds: u32,
    /// Name or path; empty: the tool's default.
    pub runtime: String,
    /// Before the verb.
    pub runtime_args: Vec<String>,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close stdin when the first attached client leaves.
    pub stdin_once: bool,
    /// Targets and modes of the injected files; the content of number n is files/<n>.
    pub files: Vec<(String, u32)>,
    /// Optional.
    pub healthcheck: Option<Healthcheck>,
    /// Changeable.
    pub extension: Option<Extension>,
    /// Remove the record after the exit.
    pub auto_remove: bool,
}

impl Definition {
    /// Attributes of each of its events, as docker has them.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.labels.clone();
        attributes.insert("name".into(), self.name.clone());
        attributes.insert("image".into(), self.image.clone());
        attributes
    }
}

mod bytes_as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
