//! From a configuration to a cgroup with its limits and the container's process in it.

use std::fs::File;

use oci_spec::runtime::{LinuxResources, Spec};

use super::prepare::refuse_in_use;
use super::systemd::{Systemd, Unit};
use super::{Layout, Placement, path, systemd};
use crate::Result;

/// Who makes cgroups (`--cgroup-manager`, `--systemd-cgroup`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// The runtime itself.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's.
    Disabled,
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

impl Placement {
    /// Where the cgroups of a container will be. Nothing is made.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a path that may not be.
    pub fn plan(spec: &Spec, id: &str, manager: Manager) -> Result<Self> {
        if manager == Manager::Disabled {
            return Ok(Self::default());
        }
        let layout = Layout::detect()?;
        let wanted = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
        let unprivileged = !super::privileged();
        if manager == Manager::Systemd {
            let wanted = systemd::wanted(wanted, id, unprivileged)?;
            let root = Systemd::connect(unprivileged)?.root()?;
            let unit = Unit { name: wanted.unit, user: unprivileged };
            return Ok(Self { unprivileged, unit: Some(unit), ..layout.place(&root.join(wanted.path)) });
        }
        let relative = path::sanitise(wanted, id, &layout)?;
        let relative = match wanted {
            // Of a delegated subtree only what lies beside the caller's own cgroup can be used.
            None if unprivileged && layout.unified => layout.beside_own(&relative),
            _ => relative,
        };
        Ok(Self { unprivileged, ..layout.place(&relative) })
    }

    /// Makes the cgroups and sets the limits, while nothing is in them. Returns warnings.
    ///
    /// # Errors
    /// [`crate::Error::Refused`], [`crate::Error::Step`]; nothing is left behind then.
    pub fn set_up(&mut self, spec: &Spec) -> Result<Vec<String>> {
        if self.dirs.is_empty() {
            return Ok(vec![]);
        }
        if self.unit.is_some() {
            // systemd starts no scope without a process: see admit.
            return self.dirs.iter().try_for_each(refuse_in_use).map(|()| vec![]);
        }
        let explicit = spec.linux().as_ref().is_some_and(|l| l.cgroups_path().is_some());
        self.prepare(explicit && self.unified)?;
        self.configure(spec).inspect_err(|_| {
            let _ = self.remove();
        })
    }

    /// Has the container's process in its cgroups, with limits, when it returns. Returns warnings.
    ///
    /// # Errors
    /// [`crate::Error::Step`], [`crate::Error::Refused`].
    pub fn admit(&self, pid: i32, id: &str, spec: &Spec) -> Result<Vec<String>> {
        let Some(unit) = &self.unit else { return self.join(pid).map(|()| vec![]) };
        let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
        let mut warnings = unit.start(&systemd::wanted(path, id, unit.user)?, id, pid, self.unified, spec)?;
        self.make_all()?;
        warnings.extend(self.configure(spec)?);
        self.join(pid)?;
        Ok(warnings)
    }

    /// Sets the limits of cgroups that are there. Without privilege there may be none: then a limit is an error. Returns warnings.
    fn configure(&self, spec: &Spec) -> Result<Vec<String>> {
        let resources = resources(spec);
        self.enable_controllers(resources)?;
        if !self.unprivileged {
            self.devices(resources)?;
        }
        let warnings = resources.map(|r| self.limit(r)).transpose()?.unwrap_or_default();
        self.delegate(spec)?;
        Ok(warnings)
    }

    /// What clone3 can start a process in (`CLONE_INTO_CGROUP`): no migration, which on cgroup v2 waits for every CPU.
    #[must_use]
    pub fn entry(&self) -> Option<File> {
        let dir = self.dirs.first().filter(|_| self.unified)?;
        File::open(&dir.path).ok()
    }
}
