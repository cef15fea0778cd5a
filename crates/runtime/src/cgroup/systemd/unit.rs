//! Asking systemd for a container's cgroup: a transient unit with the container's process in it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};
use zbus::Type;

use super::limits::properties as limit_properties;
use super::{Properties, Wanted, unit_properties};
use crate::dbus::{Bus, BusError};
use crate::{Error, Result};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A unit that a container has; part of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `pier-web.scope`.
    pub name: String,
    /// Whether it is the user's own systemd that has it.
    pub user: bool,
}

fn failed(what: &str, e: &BusError) -> Error {
    Error::Refused(format!("systemd cgroup manager: cannot {what}: {e}"))
}

/// A connection to a service manager.
pub(in crate::cgroup) struct Systemd(Bus);

impl Systemd {
    /// systemd's own socket comes first: one program less on the way, and it is there without a D-Bus daemon, too.
    pub(in crate::cgroup) fn connect(user: bool) -> Result<Self> {
        let mut why = vec![];
        for (path, is_bus) in sockets(user) {
            match Bus::connect(&path, is_bus) {
                Ok(mut bus) => {
                    // Without it the manager does not tell when a job is done.
                    let _ = bus.call(NAME, PATH, MANAGER, "Subscribe", &());
                    return Ok(Self(bus));
                }
                Err(e) => why.push(format!("{}: {e}", path.display())),
            }
        }
        Err(Error::Refused(format!(
            "systemd not running on this host, cannot use systemd cgroups manager ({})",
            why.join("; ")
        )))
    }

    /// The cgroup under which all units of this manager are: empty for the system's.
    pub(in crate::cgroup) fn root(&mut self) -> Result<PathBuf> {
        let args = (MANAGER, "ControlGroup");
        let answer = self.0.call(NAME, PATH, "org.freedesktop.DBus.Properties", "Get", &args);
        let text = answer.map_err(|e| failed("ask for its cgroup", &e))?.into_iter().next().unwrap_or_default();
        Ok(Path::new(text.trim_start_matches('/')).to_path_buf())
    }

    /// Starts a unit and waits until it is there.
    fn start(&mut self, unit: &str, properties: &Properties) -> Result<()> {
        // No further units beside it: an empty a(sa(sv)).
        let args = (unit, "replace", properties, Vec::<(&str, Properties)>::new());
        let what = format!("start unit {unit}");
        let mut started = self.job("StartTransientUnit", &args);
        if exists(&started) {
            if unit.ends_with(".slice") {
                return Ok(());
            }
            // A failed one of that name lingers until it is told to go.
            self.reset(unit);
            started = self.job("StartTransientUnit", &args);
        }
        match started.map_err(|e| failed(&what, &e))?.as_str() {
            "done" => Ok(()),
            other => {
                self.reset(unit);
                Err(Error::Refused(format!("systemd cgroup manager: cannot {what}: the job ended as {other:?}")))
            }
        }
    }

    /// Stops a unit and waits; one that is not there is fine.
    fn stop(&mut self, unit: &str) {
        let _ = self.job("StopUnit", &(unit, "replace"));
        self.reset(unit);
    }

    fn reset(&mut self, unit: &str) {
        let _ = self.0.call(NAME, PATH, MANAGER, "ResetFailedUnit", &(unit,));
    }

    fn change(&mut self, unit: &str, properties: Properties) -> Result<()> {
        let args = (unit, true, properties);
        let done = self.0.call(NAME, PATH, MANAGER, "SetUnitProperties", &args);
        done.map(|_| ()).map_err(|e| failed(&format!("change unit {unit}"), &e))
    }

    /// Calls a method that begins a job, and waits for the job's result.
    fn job(&mut self, method: &str, args: &(impl Serialize + Type)) -> Result<String, BusError> {
        let job = self.0.call(NAME, PATH, MANAGER, method, args)?.into_iter().next().unwrap_or_default();
        // JobRemoved(id, path, unit, result)
        let removed = self.0.signal("JobRemoved", |s| s.first() == Some(&job))?;
        Ok(removed.into_iter().nth(2).unwrap_or_default())
    }
}

fn exists(result: &Result<String, BusError>) -> bool {
    matches!(result, Err(BusError::Remote { name, .. }) if name.ends_with(".UnitExists"))
}

/// Where a manager listens, and whether a bus is in between.
fn sockets(user: bool) -> Vec<(PathBuf, bool)> {
    if !user {
        return vec![("/run/systemd/private".into(), false), ("/run/dbus/system_bus_socket".into(), true)];
    }
    let mut all = vec![];
    if let Some(run) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        all.extend([(run.join("systemd/private"), false), (run.join("bus"), true)]);
    }
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    all.extend(
        address.split(';').filter_map(|a| Some((a.strip_prefix("unix:path=")?.split(',').next()?.into(), true))),
    );
    all
}

impl Unit {
    /// Starts the unit with the process in it. Returns warnings.
    pub(in crate::cgroup) fn start(
        &self,
        wanted: &Wanted,
        id: &str,
        pid: i32,
        unified: bool,
        spec: &Spec,
    ) -> Result<Vec<String>> {
        let mut properties = unit_properties(wanted, id, pid, unified, spec)?;
        let mut warnings = vec![];
        if let Some(resources) = spec.linux().as_ref().and_then(|l| l.resources().as_ref()) {
            let (limits, more) = limit_properties(resources, unified)?;
            properties.extend(limits);
            warnings = more;
        }
        Systemd::connect(self.user)?.start(&self.name, &properties)?;
        Ok(warnings)
    }

    /// Tells systemd of new limits, before the files are written. Returns warnings.
    pub(crate) fn update(&self, resources: &LinuxResources, unified: bool) -> Result<Vec<String>> {
        let (properties, warnings) = limit_properties(resources, unified)?;
        if !properties.is_empty() {
            Systemd::connect(self.user)?.change(&self.name, properties)?;
        }
        Ok(warnings)
    }

    /// Ends the unit. systemd that has gone has nothing left to end.
    pub(in crate::cgroup) fn stop(&self) {
        if let Ok(mut systemd) = Systemd::connect(self.user) {
            systemd.stop(&self.name);
        }
    }
}
