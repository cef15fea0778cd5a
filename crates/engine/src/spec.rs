//! What docker's words mean to an OCI runtime: a container's configuration, its image's and the machine's facts in, a
//! runtime-spec document out. Pure: whatever has to be looked up on the host was looked up before ([`crate::host`]).
pub mod devices;
pub mod merge;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod resources;
pub mod security;

use crate::error::Error;
use api::engine::v1::ContainerConfig;
use api::types::v1::Mount;
use devices::DeviceNode;
use merge::Merged;
use serde_json::{Value, json};

/// What a container's specification depends on besides its own words: facts of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Go's name: "amd64".
    pub architecture: String,
    /// Our own bounding set: nobody can be given more. "CAP_CHOWN".
    pub capabilities: Vec<String>,
    /// The unified hierarchy has the controllers.
    pub cgroup_v2: bool,
    /// The memory controller can limit swap.
    pub swap_limit: bool,
    /// CPUs that can be used.
    pub cpus: u32,
}

/// All that [`compose`] needs.
pub struct Inputs<'a> {
    /// 64 hex digits.
    pub id: &'a str,
    /// As it was asked for.
    pub config: &'a ContainerConfig,
    /// The configuration with the image's defaults filled in.
    pub merged: &'a Merged,
    /// This host.
    pub machine: &'a Machine,
    /// Volumes, binds and tmpfs, ready to mount.
    pub mounts: &'a [Mount],
    /// Devices that were asked for, looked up (all of the host's when privileged).
    pub devices: &'a [DeviceNode],
    /// Which namespaces are whose.
    pub namespaces: &'a namespaces::Namespaces,
    /// Host path of the program to run as pid 1.
    pub init: Option<&'a str>,
}

/// The OCI runtime configuration, JSON.
///
/// # Errors
/// [`Error::Invalid`] names the option and what is wrong with it.
pub fn compose(inputs: &Inputs<'_>) -> Result<Vec<u8>, Error> {
    let config = inputs.config;
    let security = config.security.clone().unwrap_or_default();
    let args = process::args(inputs);
    let base = oci::runtime::default_spec(&args).map_err(|e| Error::Encoding { what: "default spec", source: e })?;
    let mut spec = serde_json::to_value(base).map_err(|e| Error::Encoding { what: "default spec", source: e })?;

    let capabilities = security::capabilities(&security, &inputs.machine.capabilities)?;
    spec["process"] = process::process(inputs, &capabilities)?;
    spec["root"] = json!({"path": "rootfs", "readonly": config.read_only_rootfs});
    if inputs.namespaces.uts != namespaces::Uts::Host {
        spec["hostname"] = json!(hostname(inputs));
        if !config.domainname.is_empty() {
            spec["domainname"] = json!(config.domainname);
        }
    }
    spec["mounts"] = mounts::mounts(inputs)?;
    spec["annotations"] = json!(sorted(&config.annotations));

    let linux = &mut spec["linux"];
    linux["namespaces"] = namespaces::list(inputs.namespaces);
    if let Some(map) = &inputs.namespaces.user {
        linux["uidMappings"] = namespaces::mappings(&map.uids);
        linux["gidMappings"] = namespaces::mappings(&map.gids);
    }
    linux["cgroupsPath"] = json!(cgroups_path(&config.cgroup_parent, inputs.id)?);
    linux["resources"] = resources::resources(config, inputs.machine)?;
    linux["resources"]["devices"] = devices::rules(inputs.devices, security.privileged);
    set(linux, "devices", devices::nodes(inputs.devices));
    set(linux, "sysctl", resources::sysctls(config, inputs.namespaces)?);
    set(linux, "seccomp", security::seccomp(&security, inputs.machine, &capabilities)?);
    if security.privileged {
        linux["maskedPaths"] = json!([]);
        linux["readonlyPaths"] = json!([]);
    }
    if let Some(propagation) = mounts::rootfs_propagation(inputs.mounts) {
        linux["rootfsPropagation"] = json!(propagation);
    }
    checked(spec)
}

/// The name that the container calls itself.
pub fn hostname(inputs: &Inputs<'_>) -> String {
    default_hostname(&inputs.config.hostname, inputs.id)
}

/// The wanted name, or docker's default: the id's first twelve digits.
pub fn default_hostname(wanted: &str, id: &str) -> String {
    if wanted.is_empty() { id.chars().take(12).collect() } else { wanted.to_string() }
}

// The typed form knows every field's type: what does not fit is our mistake (or a custom profile's), not the runtime's.
fn checked(spec: Value) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_vec(&spec).map_err(|e| Error::Encoding { what: "OCI spec", source: e })?;
    serde_json::from_slice::<oci_spec::runtime::Spec>(&text)
        .map_err(|e| Error::Encoding { what: "OCI spec", source: e })?;
    Ok(text)
}

// Ids are random, so stacks that share a host do not meet; without a parent of ours, none is left when all are gone.
fn cgroups_path(parent: &str, id: &str) -> Result<String, Error> {
    if parent.is_empty() {
        return Ok(format!("/pier-{id}"));
    }
    if parent.split('/').any(|part| part == ".." || part == ".") || parent.contains('\0') {
        return Err(Error::invalid("cgroup parent", parent, "no . or .. may stand in it"));
    }
    Ok(format!("/{}/{id}", parent.trim_matches('/')))
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[key] = value;
    }
}

/// A map in an order that does not change from run to run.
pub(crate) fn sorted<'a, V>(
    map: impl IntoIterator<Item = (&'a String, &'a V)>,
) -> std::collections::BTreeMap<&'a str, &'a V>
where
    V: 'a,
{
    map.into_iter().map(|(k, v)| (k.as_str(), v)).collect()
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
