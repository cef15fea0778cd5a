//! The engine's part of a container's record: what was asked for and what was decided, opaque to the supervisor that
//! keeps it. Nothing else of a container is stored by the engine, here or anywhere.
use crate::error::Error;
use api::engine::v1::{ContainerConfig, MountPoint};
use api::supervisor::v1::{Container, ContainerSpec, Extension};
use prost::Message;

/// Type of the extension; a change of meaning is a new one.
pub const TYPE: &str = "pier.engine/v1";

/// The extension's value, a protobuf message. Fields are only ever added.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// As it was asked for, networks connected or disconnected since then included.
    #[prost(message, optional, tag = "1")]
    pub config: Option<ContainerConfig>,
    /// Config digest of the image.
    #[prost(string, tag = "2")]
    pub image_id: String,
    /// Ports of the image and of the request: "80/tcp".
    #[prost(string, repeated, tag = "3")]
    pub exposed_ports: Vec<String>,
    /// Containers whose namespaces it joins, with the pid they had.
    #[prost(message, repeated, tag = "4")]
    pub joined: Vec<Joined>,
    /// Names of the volumes that were made for it alone.
    #[prost(string, repeated, tag = "5")]
    pub anonymous_volumes: Vec<String>,
    /// Of its user namespace: `oci::idmap` as text; empty: it has the host's.
    #[prost(string, tag = "6")]
    pub idmap: String,
    /// What it mounts, its image's volumes included.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<MountPoint>,
}

/// A namespace of another container.
#[derive(Clone, PartialEq, Message)]
pub struct Joined {
    /// Its full id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// "pid".
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Host pid of its first process when it was joined.
    #[prost(int32, tag = "3")]
    pub pid: i32,
}

impl Record {
    /// As the supervisor keeps it.
    pub fn extension(&self) -> Extension {
        Extension { r#type: TYPE.into(), value: self.encode_to_vec().into() }
    }

    /// From a container; `None` when it was not made by an engine (or by a later one).
    pub fn of(container: &Container) -> Option<Self> {
        let extension = container.spec.as_ref()?.extension.as_ref()?;
        (extension.r#type == TYPE).then(|| Self::decode(extension.value.clone()).ok())?
    }

    /// The configuration; the default one when there is none.
    pub fn config(&self) -> ContainerConfig {
        self.config.clone().unwrap_or_default()
    }
}

/// The container's specification, which every answer of the supervisor carries.
pub fn spec_of(container: &Container) -> &ContainerSpec {
    static EMPTY: std::sync::OnceLock<ContainerSpec> = std::sync::OnceLock::new();
    container.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(ContainerSpec::default))
}

/// Full id.
pub fn id_of(container: &Container) -> &str {
    &spec_of(container).id
}

/// Refuses containers that the supervisor made without an engine.
pub fn required(container: &Container) -> Result<Record, Error> {
    Record::of(container).ok_or_else(|| Error::State {
        container: spec_of(container).name.clone(),
        why: "was not made by this engine".into(),
        hint: "use pier-supervisor for it",
    })
}
