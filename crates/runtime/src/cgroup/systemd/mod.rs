//! systemd as the one that makes a container's cgroup: unit names, slices and properties here are pure, [`unit`] asks.

mod annotation;
mod limits;
mod unit;

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use zbus::Variant;

pub(super) use unit::Systemd;
pub use unit::Unit;

use crate::{Error, Result};

/// Properties of a unit.
type Properties = Vec<(String, Variant<'static>)>;

/// Where a container's unit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The unit, a scope or (by its name) a slice.
    pub unit: String,
    /// The slice it is in.
    pub slice: String,
    /// Its cgroup, from the manager's own.
    pub path: PathBuf,
}

/// Reads `linux.cgroupsPath` as `slice:prefix:name`; absent means `pier-<id>.scope` in the default slice.
///
/// # Errors
/// [`Error::Refused`].
pub(super) fn wanted(path: Option<&Path>, id: &str, user: bool) -> Result<Wanted> {
    let default = if user { "user.slice" } else { "system.slice" };
    let text = path.map(|p| p.to_string_lossy().into_owned()).filter(|p| !p.is_empty());
    let (slice, prefix, name) = match &text {
        None => (default, "pier", id),
        Some(text) => {
            let parts: Vec<&str> = text.split(':').collect();
            let [slice, prefix, name] = parts[..] else {
                return Err(Error::Refused(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
                )));
            };
            (if slice.is_empty() { default } else { slice }, prefix, name)
        }
    };
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(Error::Refused(format!("linux.cgroupsPath {text:?} is no name of a unit")));
    }
    let expanded = expand(slice)?;
    if name.ends_with(".slice") {
        return Ok(Wanted { unit: name.to_owned(), slice: slice.to_owned(), path: expand(name)? });
    }
    let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    Ok(Wanted { path: expanded.join(&unit), unit, slice: slice.to_owned() })
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)): `a.slice/a-b.slice`.
fn expand(slice: &str) -> Result<PathBuf> {
    let bad = || Error::Refused(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|n| !n.is_empty() && !n.contains('/')).ok_or_else(bad)?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Ok(path);
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

fn put(out: &mut Properties, name: &str, value: Variant<'static>) {
    out.push((name.to_owned(), value));
}

/// What a container's unit is made with, limits aside.
fn unit_properties(wanted: &Wanted, id: &str, pid: i32, unified: bool, spec: &Spec) -> Result<Properties> {
    let mut out = vec![];
    put(&mut out, "Description", Variant::from(format!("container {id}")));
    if wanted.unit.ends_with(".slice") {
        put(&mut out, "Wants", Variant::from(vec![wanted.slice.clone()]));
    } else {
        put(&mut out, "Slice", wanted.slice.clone().into());
        put(&mut out, "Delegate", Variant::Bool(true));
        put(&mut out, "PIDs", Variant::from(vec![pid.unsigned_abs()]));
    }
    let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["CPUAccounting", "MemoryAccounting", io, "TasksAccounting"] {
        put(&mut out, name, Variant::Bool(true));
    }
    put(&mut out, "DefaultDependencies", Variant::Bool(false));
    let mut annotations: Vec<_> = spec.annotations().iter().flatten().collect();
    annotations.sort();
    for (key, value) in annotations {
        if let Some(name) = key.strip_prefix("org.systemd.property.") {
            out.push(
                annotation::property(name, value)
                    .map_err(|why| Error::Refused(format!("annotation {key}={value}: {why}")))?,
            );
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(path: &str) -> Result<Wanted> {
        wanted(Some(Path::new(path)), "id", false)
    }

    #[test]
    fn units_and_slices() {
        let w = place("machine-a-b.slice:docker:12").unwrap();
        assert_eq!(w.unit, "docker-12.scope");
        assert_eq!(w.path, Path::new("machine.slice/machine-a.slice/machine-a-b.slice/docker-12.scope"));
        assert_eq!(place(":x:y").unwrap().path, Path::new("system.slice/x-y.scope"));
        assert_eq!(place("-.slice::y").unwrap().path, Path::new("y.scope"));
        assert_eq!(place("a.slice::a-b.slice").unwrap().path, Path::new("a.slice/a-b.slice"));
        assert_eq!(wanted(None, "id", true).unwrap().path, Path::new("user.slice/pier-id.scope"));
        for wrong in
            ["/a/b", "a:b", "a:b:c:d", "a.slice:b:", "a--b.slice:x:y", "x/y.slice:a:b", ".slice:a:b", "a.slice:b:c/d"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
