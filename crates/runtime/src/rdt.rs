//! `linux.intelRdt`: cache and memory bandwidth classes, through libcontainer, on kernels with resctrl mounted.

use std::path::{Path, PathBuf};

use libcontainer::process::intel_rdt::{find_resctrl_mount_point, setup_intel_rdt};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIntelRdt, Spec};

use crate::error::Context;
use crate::hook::chain;
use crate::state::Record;
use crate::{Error, Result};

/// What `update` changes of a class (`--l3-cache-schema`, `--mem-bw-schema`): lines for its `schemata` file.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// L3 cache.
    pub l3_cache: Option<String>,
    /// Memory bandwidth.
    pub memory_bandwidth: Option<String>,
}

impl Changes {
    /// Refuses what this machine does not have. `root` is where resctrl is mounted.
    fn check(&self, root: Option<&Path>) -> Result<()> {
        let has = |what: &str| root.is_some_and(|r| r.join("info").join(what).is_dir());
        // With code and data prioritisation on, there is L3CODE and L3DATA instead (kernel's filesystems/resctrl).
        if self.l3_cache.is_some() && !(has("L3") || has("L3CODE")) {
            return Err(Error::Refused("Intel RDT/CAT: l3 cache schema is not enabled".into()));
        }
        if self.memory_bandwidth.is_some() && !has("MB") {
            return Err(Error::Refused("Intel RDT/MBA: memory bandwidth schema is not enabled".into()));
        }
        Ok(())
    }

    /// The lines to write. With both given, bandwidth is not the cache's to say (runtime-spec, `intelRdt`).
    fn lines(&self) -> String {
        let cache = self.l3_cache.iter().flat_map(|s| s.lines());
        let cache = cache.filter(|l| self.memory_bandwidth.is_none() || !l.starts_with("MB:"));
        cache.chain(self.memory_bandwidth.as_deref()).map(|line| format!("{line}\n")).collect()
    }

    /// The configuration with them. Pure.
    fn merge(&self, old: Option<&LinuxIntelRdt>) -> LinuxIntelRdt {
        let mut rdt = old.cloned().unwrap_or_default();
        if self.l3_cache.is_some() {
            rdt.set_l3_cache_schema(self.l3_cache.clone());
        }
        if self.memory_bandwidth.is_some() {
            rdt.set_mem_bw_schema(self.memory_bandwidth.clone());
        }
        rdt
    }

    /// Writes them to the class that a container is in already.
    fn write(&self, root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<()> {
        let schemata = root.join(rdt.clos_id().as_deref().unwrap_or(id)).join("schemata");
        crate::kernel_file::write(&schemata, &self.lines()).step(|| format!("cannot set {}", schemata.display()))
    }
}

/// Finds resctrl and refuses what it does not have, before anything is changed.
pub(crate) fn find(changes: &Changes) -> Result<Option<PathBuf>> {
    if changes.l3_cache.is_none() && changes.memory_bandwidth.is_none() {
        return Ok(None);
    }
    let root = find_resctrl_mount_point().ok();
    changes.check(root.as_deref())?;
    Ok(root)
}

/// Changes the class of a running container under `root`; one that has none gets its own, as at `create`.
pub(crate) fn update(root: &Path, changes: &Changes, spec: &mut Spec, record: &mut Record, pid: i32) -> Result<()> {
    let Some(mut linux) = spec.linux().clone() else { return Ok(()) };
    let had = linux.intel_rdt().clone();
    linux.set_intel_rdt(Some(changes.merge(had.as_ref())));
    spec.set_linux(Some(linux));
    match had {
        Some(rdt) => changes.write(root, &rdt, &record.id),
        None => {
            record.intel_rdt = join(spec, &record.id, pid)?;
            Ok(())
        }
    }
}

/// Refuses a class that this machine cannot give.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let wanted = spec.linux().as_ref().is_some_and(|l| l.intel_rdt().is_some());
    if wanted && find_resctrl_mount_point().is_err() {
        return Err(Error::Refused("intelRdt is specified in config, but Intel RDT is not enabled".into()));
    }
    Ok(())
}

/// Puts a process into its class; returns the directories that end with the container, the inner ones first.
pub(crate) fn join(spec: &Spec, id: &str, pid: i32) -> Result<Vec<PathBuf>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()) else { return Ok(vec![]) };
    let made = setup_intel_rdt(Some(id), &Pid::from_raw(pid), rdt);
    let (class, monitoring) = made.map_err(|e| Error::Refused(format!("intelRdt: {}", chain(&e))))?;
    Ok([monitoring, class].into_iter().flatten().collect())
}

/// Removes such directories; those that are gone are no error.
///
/// # Errors
/// [`Error::Step`] naming the directory.
pub(crate) fn leave(directories: &[PathBuf]) -> Result<()> {
    for directory in directories {
        match std::fs::remove_dir(directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::step(format!("cannot remove {}", directory.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn changes(l3: Option<&str>, bandwidth: Option<&str>) -> Changes {
        Changes { l3_cache: l3.map(str::to_owned), memory_bandwidth: bandwidth.map(str::to_owned) }
    }

    /// A directory as resctrl's, with bandwidth and no cache, and two classes.
    fn resctrl(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("pier-rdt-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for dir in ["info/MB", "box", "gold"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for class in ["box", "gold"] {
            std::fs::write(root.join(class).join("schemata"), "").unwrap();
        }
        root
    }

    #[test]
    fn what_is_not_enabled_is_refused() {
        let root = resctrl("check");
        assert!(changes(None, Some("MB:0=20")).check(Some(&root)).is_ok());
        let error = changes(Some("L3:0=f"), None).check(Some(&root)).unwrap_err();
        assert!(error.to_string().contains("l3 cache schema is not enabled"), "{error}");
        std::fs::create_dir(root.join("info/L3CODE")).unwrap();
        assert!(changes(Some("L3:0=f"), None).check(Some(&root)).is_ok());
        assert!(changes(None, Some("MB:0=20")).check(None).is_err());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_class_that_a_container_is_in_is_changed() {
        let root = resctrl("write");
        let read = |class: &str| std::fs::read_to_string(root.join(class).join("schemata")).unwrap();
        let both = changes(Some("L3:0=f\nMB:0=70"), Some("MB:0=20"));
        let named: LinuxIntelRdt = serde_json::from_str(r#"{"closID": "gold", "memBwSchema": "MB:0=90"}"#).unwrap();
        both.write(&root, &named, "box").unwrap();
        assert_eq!((read("gold").as_str(), read("box").as_str()), ("L3:0=f\nMB:0=20\n", ""));
        changes(Some("L3:0=f\nMB:0=70"), None).write(&root, &LinuxIntelRdt::default(), "box").unwrap();
        assert_eq!(read("box"), "L3:0=f\nMB:0=70\n");
        assert!(both.write(&root, &LinuxIntelRdt::default(), "absent").is_err(), "a class was made up");
        let merged = changes(Some("L3:0=f"), None).merge(Some(&named));
        assert_eq!(merged.clos_id().as_deref(), Some("gold"));
        assert_eq!(merged.l3_cache_schema().as_deref(), Some("L3:0=f"));
        assert_eq!(merged.mem_bw_schema().as_deref(), Some("MB:0=90"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
