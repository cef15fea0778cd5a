//! AppArmor and SELinux: the label of the program (and of its keyring), written where a mount of the image cannot redirect it.

use std::fs;
use std::io::Write;
use std::path::Path;

use libcontainer::apparmor;
use oci_spec::runtime::{Process, Spec};
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle};

use crate::error::words;
use crate::mounting::Step;
use crate::{Error, Result};

/// There when SELinux has been enabled and its policy can be asked.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// Refuses labels that this kernel would not enforce: a container that believes to be confined and is not is worse than none.
pub(crate) fn check(spec: &Spec, process: &Process) -> Result<()> {
    let refuse = |why: &str| Err(Error::Refused(why.to_owned()));
    let named = |label: &Option<String>| label.as_ref().is_some_and(|l| !l.is_empty());
    if named(process.apparmor_profile()) && !apparmor::is_enabled().unwrap_or(false) {
        return refuse("apparmor: config provided but apparmor not supported");
    }
    let mount_label = spec.linux().as_ref().is_some_and(|l| named(l.mount_label()));
    if (named(process.selinux_label()) || mount_label) && !Path::new(SELINUX).exists() {
        return refuse("selinux label is specified in config, but selinux is disabled or not supported");
    }
    Ok(())
}

/// The label of keys that this process makes from here on, so that the program can use its keyring.
pub(crate) fn label_keys(process: &Process) -> Step {
    match label(process.selinux_label()) {
        Some(label) => write("keycreate", label),
        None => Ok(()),
    }
}

/// What the program of the next execve is confined to.
pub(crate) fn confine(process: &Process) -> Step {
    if let Some(profile) = label(process.apparmor_profile()) {
        apparmor::apply_profile(profile).map_err(|e| format!("apparmor: {}", crate::hook::chain(&e)))?;
    }
    match label(process.selinux_label()) {
        Some(label) => write("exec", label),
        None => Ok(()),
    }
}

fn label(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|l| !l.is_empty())
}

fn write(attribute: &str, label: &str) -> Step {
    let path = Path::new("attr").join(attribute);
    let open =
        |proc: ProcfsHandle| proc.open(ProcfsBase::ProcThreadSelf, &path, OpenFlags::O_WRONLY | OpenFlags::O_CLOEXEC);
    let mut file: fs::File = ProcfsHandle::new().and_then(open).map_err(|e| format!("selinux: {e}"))?;
    file.write_all(label.as_bytes()).map_err(|e| format!("selinux: cannot set label {label:?}: {}", words(e)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_nobody_enforces_are_refused() {
        let mut process: Process =
            serde_json::from_value(serde_json::json!({"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0}}))
                .unwrap();
        let spec = Spec::default();
        assert!(check(&spec, &process).is_ok());
        process.set_apparmor_profile(Some("docker-default".into()));
        assert_eq!(check(&spec, &process).is_ok(), apparmor::is_enabled().unwrap_or(false));
        process.set_apparmor_profile(None);
        process.set_selinux_label(Some("system_u:system_r:container_t:s0".into()));
        assert_eq!(check(&spec, &process).is_ok(), Path::new(SELINUX).exists());
    }
}
