//! Setting limits and device rules on a container's cgroups.

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::setting::{Need, Setting};
use super::{Dir, Placement, bpf, device, v1, v2};
use crate::error::Context;
use crate::{Error, Result};

impl Placement {
    /// Sets what `resources` says and leaves the rest alone. Returns warnings.
    ///
    /// # Errors
    /// [`Error::Step`] naming file and value, [`Error::Refused`] for values that make no sense or a controller this
    /// machine lacks.
    pub fn limit(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let mut warnings = vec![];
        if resources.memory().is_some_and(|m| m.kernel().or(m.kernel_tcp()).is_some()) {
            warnings.push("Kernel memory settings are ignored and will be removed".into());
        }
        self.check_memory(resources)?;
        let settings = if self.unified { v2::settings(resources)? } else { self.on_v1(resources)? };
        for setting in &settings {
            warnings.extend(self.set(setting)?);
        }
        Ok(warnings)
    }

    /// v1's settings; on a hybrid machine those for controllers that only the unified hierarchy has in its words.
    fn on_v1(&self, resources: &LinuxResources) -> Result<Vec<Setting>> {
        let mut settings = v1::settings(resources)?;
        for controller in ["hugetlb", "rdma"] {
            if settings.iter().any(|s| s.controller == controller) && self.moved_to_unified(controller) {
                settings.retain(|s| s.controller != controller);
                settings.extend(v2::settings(resources)?.into_iter().filter(|s| s.controller == controller));
            }
        }
        Ok(settings)
    }

    /// Whether a controller is in the unified hierarchy beside v1's; it is enabled for the container then.
    fn moved_to_unified(&self, controller: &str) -> bool {
        let Some(dir) = self.dirs.iter().find(|d| d.controllers.is_empty()) else { return false };
        if self.with(controller).is_some_and(|d| !d.controllers.is_empty()) {
            return false;
        }
        if !has_controller(&dir.path, controller) {
            self.enable_controllers_of(dir);
        }
        has_controller(&dir.path, controller)
    }

    /// Puts device rules in force. Only with privilege over the whole machine.
    ///
    /// # Errors
    /// [`Error::Step`], [`Error::Refused`].
    pub fn devices(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let rules = device::rules(resources.and_then(|r| r.devices().as_deref()).unwrap_or(&[]))?;
        if !self.unified {
            // A machine without the controller has never enforced them: that is what its v1 kernel was built for.
            return match self.with("devices") {
                Some(_) => v1::devices(&rules).iter().try_for_each(|s| self.set(s).map(|_| ())),
                None => Ok(()),
            };
        }
        let Some(dir) = self.dirs.first() else { return Ok(()) };
        bpf::enforce(&dir.path, &rules).step(|| format!("cannot set the device rules of {}", dir.path.display()))
    }

    fn set(&self, setting: &Setting) -> Result<Option<String>> {
        let Setting { controller, file, value, need } = setting;
        let Some(dir) = self.with(controller) else {
            return match need {
                Need::Must => Err(self.no_controller(controller, file)),
                Need::WarnIfAbsent => Ok(Some(format!("this machine has no {controller} cgroup: {file} is not set"))),
                Need::Try | Need::IfThere => Ok(None),
            };
        };
        let path = dir.path.join(file);
        let Err(e) = super::write(&path, value) else { return Ok(None) };
        let absent = e.kind() == io::ErrorKind::NotFound;
        match need {
            Need::Try => Ok(None),
            Need::IfThere if absent => Ok(None),
            // The scheduler's own file has taken it.
            Need::WarnIfAbsent if absent && dir.path.join(file.replacen('.', ".bfq.", 1)).exists() => Ok(None),
            Need::WarnIfAbsent if absent => Ok(Some(format!("this machine has no {file}: it is not set"))),
            _ => Err(self.explain(dir, setting, e)),
        }
    }

    fn no_controller(&self, controller: &str, file: &str) -> Error {
        if self.unprivileged && !self.unified {
            return Error::Refused(format!("cannot set {controller} limit: container could not join or create cgroup"));
        }
        if self.unprivileged && self.dirs.is_empty() {
            return Error::Refused(
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".into(),
            );
        }
        Error::Refused(format!("this machine has no {controller} cgroup for {file}"))
    }

    fn explain(&self, dir: &Dir, setting: &Setting, e: io::Error) -> Error {
        let Setting { controller, file, value, .. } = setting;
        let denied = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        if self.unified && denied && controller != "cgroup" && !has_controller(&dir.path, controller) {
            return Error::Refused(format!(
                "unified resource {file:?} can't be set: controller {controller:?} not available"
            ));
        }
        if file == "memory.limit_in_bytes" && e.raw_os_error() == Some(libc::EBUSY) {
            let read = |name| fs::read_to_string(dir.path.join(name)).unwrap_or_default();
            let (usage, peak) = (read("memory.usage_in_bytes"), read("memory.max_usage_in_bytes"));
            return Error::Refused(format!(
                "unable to set memory limit to {value} (current usage: {}, peak usage: {})",
                usage.trim(),
                peak.trim()
            ));
        }
        Error::step(format!("cannot set {file} to {value:?} in {}", dir.path.display()), e)
    }

    /// `memory.checkBeforeUpdate`: a limit below what is used now would end the container.
    pub(crate) fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().filter(|m| m.check_before_update() == Some(true)) else { return Ok(()) };
        let file = if self.unified { "memory.current" } else { "memory.usage_in_bytes" };
        let usage = self.with("memory").and_then(|d| fs::read_to_string(d.path.join(file)).ok());
        let Some(usage) = usage.and_then(|t| t.trim().parse::<i64>().ok()) else { return Ok(()) };
        for (name, value) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
            if let Some(value) = value.filter(|v| *v > 0 && *v <= usage) {
                return Err(Error::Refused(format!("rejecting {name} limit {value} <= usage {usage}")));
            }
        }
        Ok(())
    }
}

/// Whether a cgroup v2 directory has a controller.
pub(super) fn has_controller(dir: &Path, controller: &str) -> bool {
    fs::read_to_string(dir.join("cgroup.controllers"))
        .is_ok_and(|t| t.split_ascii_whitespace().any(|c| c == controller))
}
