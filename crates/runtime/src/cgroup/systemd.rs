//! systemd's words for a container's cgroup: unit names, slices, properties. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use super::setting::set;
use super::v2;
use crate::dbus::Arg;
use crate::{Error, Result};

/// Properties of a unit.
pub(super) type Properties = Vec<(String, Arg)>;

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

fn put(out: &mut Properties, name: &str, value: Arg) {
    out.push((name.to_owned(), value));
}

/// What a container's unit is made with, limits aside.
pub(super) fn unit_properties(wanted: &Wanted, id: &str, pid: i32, unified: bool, spec: &Spec) -> Result<Properties> {
    let mut out = vec![];
    put(&mut out, "Description", Arg::Text(format!("container {id}")));
    if wanted.unit.ends_with(".slice") {
        put(&mut out, "Wants", Arg::Texts(vec![wanted.slice.clone()]));
    } else {
        put(&mut out, "Slice", wanted.slice.as_str().into());
        put(&mut out, "Delegate", Arg::Bool(true));
        put(&mut out, "PIDs", Arg::Numbers(vec![pid.unsigned_abs()]));
    }
    let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["CPUAccounting", "MemoryAccounting", io, "TasksAccounting"] {
        put(&mut out, name, Arg::Bool(true));
    }
    put(&mut out, "DefaultDependencies", Arg::Bool(false));
    let mut annotations: Vec<_> = spec.annotations().iter().flatten().collect();
    annotations.sort();
    for (key, value) in annotations {
        if let Some(name) = key.strip_prefix("org.systemd.property.") {
            out.push(
                annotation(name, value).map_err(|why| Error::Refused(format!("annotation {key}={value}: {why}")))?,
            );
        }
    }
    Ok(out)
}

/// Limits as properties, so that systemd and the kernel's files agree. What systemd has no word for is in the files alone.
///
/// Returns warnings, too.
///
/// # Errors
/// [`Error::Refused`] for values that make no sense.
pub(super) fn limit_properties(r: &LinuxResources, unified: bool) -> Result<(Properties, Vec<String>)> {
    let mut out = vec![];
    if let Some(memory) = r.memory() {
        let (limit, low) = (set(memory.limit()), set(memory.reservation()));
        if let Some(limit) = limit {
            put(&mut out, if unified { "MemoryMax" } else { "MemoryLimit" }, or_infinity(limit));
        }
        if unified {
            if let Some(low) = low {
                put(&mut out, "MemoryLow", or_infinity(low));
            }
            if let Some(swap) = v2::swap(set(memory.swap()).unwrap_or(0), limit.unwrap_or(0))? {
                put(&mut out, "MemorySwapMax", or_infinity(swap));
            }
        }
    }
    let mut warnings = vec![];
    if let Some(cpu) = r.cpu() {
        let idle = unified && cpu.idle() == Some(1);
        if idle {
            // systemd's way to say idle, since 252.
            put(&mut out, "CPUWeight", Arg::U64(0));
        }
        match set(cpu.shares()) {
            Some(_) if idle => {
                warnings.push("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight".into())
            }
            Some(shares) if unified => put(&mut out, "CPUWeight", Arg::U64(v2::weight(shares))),
            Some(shares) => put(&mut out, "CPUShares", Arg::U64(shares)),
            None => {}
        }
        quota(&mut out, set(cpu.quota()), set(cpu.period()));
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_deref().filter(|l| unified && !l.is_empty()) {
                put(&mut out, name, Arg::Bytes(bits(list)?));
            }
        }
    }
    if let Some(pids) = r.pids().map(|p| p.limit()).filter(|n| *n != 0) {
        put(&mut out, "TasksMax", or_infinity(pids));
    }
    if !unified && let Some(weight) = r.block_io().as_ref().and_then(|io| set(io.weight())) {
        put(&mut out, "BlockIOWeight", Arg::U64(weight.into()));
    }
    let mut files: Vec<_> = r.unified().iter().flatten().collect();
    files.sort();
    let idle = files.iter().any(|(k, v)| *k == "cpu.idle" && v.trim() == "1");
    for (file, value) in files {
        if file == "cpu.weight" && idle {
            warnings.push("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight".into());
            continue;
        }
        from_file(&mut out, file, value.trim())?;
    }
    Ok((out, warnings))
}

fn or_infinity(n: i64) -> Arg {
    Arg::U64(u64::try_from(n).unwrap_or(u64::MAX))
}

/// systemd counts in whole percents of a CPU: rounded up, so that the container's own file, set after, is never more.
fn quota(out: &mut Properties, quota: Option<i64>, period: Option<u64>) {
    if let Some(period) = period {
        put(out, "CPUQuotaPeriodUSec", Arg::U64(period));
    }
    if quota.is_some() || period.is_some() {
        let per_second = quota.and_then(|q| u64::try_from(q).ok()).map_or(u64::MAX, |q| {
            q.saturating_mul(1_000_000).div_ceil(period.unwrap_or(100_000)).next_multiple_of(10_000)
        });
        put(out, "CPUQuotaPerSecUSec", Arg::U64(per_second));
    }
}

fn from_file(out: &mut Properties, file: &str, value: &str) -> Result<()> {
    let bad = || Error::Refused(format!("unified resource {file:?} value invalid: {value:?}"));
    let number = |text: &str| if text == "max" { Ok(u64::MAX) } else { text.parse().map_err(|_| bad()) };
    let name = match file {
        "cpu.idle" if value == "1" => {
            put(out, "CPUWeight", Arg::U64(0));
            return Ok(());
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let limit = words.next().ok_or_else(bad)?;
            let limit = if limit == "max" { -1 } else { limit.parse().map_err(|_| bad())? };
            let period = words.next().map_or(Ok(100_000), |w| w.parse().map_err(|_| bad()))?;
            quota(out, Some(limit), Some(period));
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            put(out, name, Arg::Bytes(bits(value)?));
            return Ok(());
        }
        "cpu.weight" => "CPUWeight",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return Ok(()),
    };
    put(out, name, Arg::U64(number(value)?));
    Ok(())
}

/// A list of CPUs (`0-2,7`) as a bit mask, lowest byte first.
fn bits(list: &str) -> Result<Vec<u8>> {
    let bad = || Error::Refused(format!("invalid list of CPUs or nodes: {list:?}"));
    let mut mask = vec![];
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) =
            (from.trim().parse().map_err(|_| bad())?, to.trim().parse().map_err(|_| bad())?);
        // CONFIG_NR_CPUS goes up to 8192.
        if from > to || to > 8192 {
            return Err(bad());
        }
        for bit in from..=to {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    if mask.is_empty() { Err(bad()) } else { Ok(mask) }
}

/// `org.systemd.property.NAME`: a value in GVariant's text format. `NAMESec` in seconds becomes `NAMEUSec`.
fn annotation(name: &str, value: &str) -> Result<(String, Arg), String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err("the name is not of a property".into());
    }
    let value = variant(value.trim())?;
    match name.strip_suffix("Sec").filter(|n| n.ends_with(|c: char| c.is_ascii_lowercase())) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(value: &Arg) -> Result<Arg, String> {
    let seconds = match value {
        Arg::Byte(n) => f64::from(*n),
        Arg::I32(n) => f64::from(*n),
        Arg::U32(n) => f64::from(*n),
        Arg::I64(n) => *n as f64,
        Arg::U64(n) => *n as f64,
        Arg::F64(n) => *n,
        _ => return Err("is not a number of seconds".into()),
    };
    if seconds < 0.0 { Err("is negative".into()) } else { Ok(Arg::U64((seconds * 1e6) as u64)) }
}

fn variant(text: &str) -> Result<Arg, String> {
    let bad = || format!("cannot parse {text:?}");
    if let Some(inner) = quoted(text) {
        return Ok(Arg::Text(inner));
    }
    if let Some(inner) = text.strip_prefix("@as").map_or(text, str::trim).strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        let parts = inner.split(',').map(str::trim).filter(|p| !p.is_empty());
        return Ok(Arg::Texts(parts.map(|p| quoted(p).ok_or_else(bad)).collect::<Result<_, _>>()?));
    }
    let (kind, number) = text.split_once(' ').unwrap_or(("", text));
    let number = number.trim();
    match kind {
        "" if text == "true" || text == "false" => Ok(Arg::Bool(text == "true")),
        "" if text.contains('.') => text.parse().map(Arg::F64).map_err(|_| bad()),
        "" | "int32" => number.parse().map(Arg::I32).map_err(|_| bad()),
        "byte" => number.parse().map(Arg::Byte).map_err(|_| bad()),
        "uint32" => number.parse().map(Arg::U32).map_err(|_| bad()),
        "int64" => number.parse().map(Arg::I64).map_err(|_| bad()),
        "uint64" => number.parse().map(Arg::U64).map_err(|_| bad()),
        "double" => number.parse().map(Arg::F64).map_err(|_| bad()),
        "boolean" => number.parse().map(Arg::Bool).map_err(|_| bad()),
        "string" => quoted(number).map(Arg::Text).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

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

    fn limits(value: serde_json::Value) -> Properties {
        limit_properties(&serde_json::from_value(value).unwrap(), true).unwrap().0
    }

    #[test]
    fn limits_as_properties() {
        let got = limits(
            json!({"memory": {"limit": 64, "swap": 100}, "cpu": {"quota": 12345, "period": 100_000, "cpus": "0-2,9"},
            "pids": {"limit": -1}, "unified": {"memory.high": "7", "cpu.max": "max 5000", "io.max": "x"}}),
        );
        let expected: Properties = vec![
            ("MemoryMax".into(), Arg::U64(64)),
            ("MemorySwapMax".into(), Arg::U64(36)),
            ("CPUQuotaPeriodUSec".into(), Arg::U64(100_000)),
            ("CPUQuotaPerSecUSec".into(), Arg::U64(130_000)),
            ("AllowedCPUs".into(), Arg::Bytes(vec![7, 2])),
            ("TasksMax".into(), Arg::U64(u64::MAX)),
            ("CPUQuotaPeriodUSec".into(), Arg::U64(5000)),
            ("CPUQuotaPerSecUSec".into(), Arg::U64(u64::MAX)),
            ("MemoryHigh".into(), Arg::U64(7)),
        ];
        assert_eq!(got, expected);
        assert!(bits("1-").is_err() && bits("3-1").is_err() && bits("").is_err() && bits("99999").is_err());
    }

    #[test]
    fn annotations() {
        let of = |name: &str, value: &str| annotation(name, value);
        assert_eq!(of("TimeoutStopSec", "uint64 2").unwrap(), ("TimeoutStopUSec".into(), Arg::U64(2_000_000)));
        assert_eq!(of("CollectMode", "'inactive-or-failed'").unwrap().1, "inactive-or-failed".into());
        assert_eq!(of("After", "['a', \"b\"]").unwrap().1, Arg::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(of("SendSIGHUP", "true").unwrap().1, Arg::Bool(true));
        assert_eq!(of("DefaultTasksMax", "5").unwrap().1, Arg::I32(5));
        assert!(of("x", "1").is_err() && of("A-b", "1").is_err() && of("Name", "one").is_err());
    }
}
