//! Device nodes and the rules that let a container use them.
use crate::error::Error;
use serde_json::{Value, json};

/// A host device that the container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path inside.
    pub path: String,
    /// 'c' or 'b'.
    pub kind: char,
    /// Of st_rdev.
    pub major: u32,
    /// Of st_rdev.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of "rwm".
    pub access: String,
}

/// `--device HOST[:CONTAINER[:PERMISSIONS]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceArgument {
    /// Path on the host.
    pub host: String,
    /// Path inside.
    pub container: String,
    /// Of "rwm".
    pub access: String,
}

/// Reads docker's three forms; the second part may be the permissions.
pub fn parse(text: &str) -> Result<DeviceArgument, Error> {
    let bad = |why: &str| Error::invalid("device", text, why);
    let is_access = |s: &str| !s.is_empty() && s.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, container] => (*host, *container, "rwm"),
        [host, container, access] if is_access(access) => (*host, *container, *access),
        _ => return Err(bad("expected HOST[:CONTAINER[:rwm]]")),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(bad("device paths are absolute"));
    }
    Ok(DeviceArgument { host: host.into(), container: container.into(), access: access.into() })
}

/// `linux.resources.devices`.
pub fn rules(nodes: &[DeviceNode], privileged: bool) -> Value {
    if privileged {
        return json!([{"allow": true, "access": "rwm"}]);
    }
    let mut rules = oci::runtime::default_device_rules();
    if let Some(list) = rules.as_array_mut() {
        list.extend(nodes.iter().map(|n| {
            json!({"allow": true, "type": n.kind.to_string(), "major": n.major, "minor": n.minor, "access": n.access})
        }));
    }
    rules
}

/// `linux.devices`.
pub fn nodes(nodes: &[DeviceNode]) -> Option<Value> {
    let list: Vec<Value> = nodes
        .iter()
        .map(|n| {
            json!({"path": n.path, "type": n.kind.to_string(), "major": n.major, "minor": n.minor,
                   "fileMode": n.mode, "uid": n.uid, "gid": n.gid})
        })
        .collect();
    (!list.is_empty()).then(|| json!(list))
}
