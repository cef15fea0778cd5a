//! Limits in systemd's words (systemd.resource-control(5)). Pure.

use oci_spec::runtime::LinuxResources;
use zbus::Variant;

use super::{Properties, put};
use crate::cgroup::setting::set;
use crate::cgroup::v2;
use crate::{Error, Result};

/// Limits as properties, so that systemd and the kernel's files agree. What systemd has no word for is in the files alone.
///
/// Returns warnings, too.
///
/// # Errors
/// [`Error::Refused`] for values that make no sense.
pub(super) fn properties(r: &LinuxResources, unified: bool) -> Result<(Properties, Vec<String>)> {
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
            put(&mut out, "CPUWeight", Variant::U64(0));
        }
        match set(cpu.shares()) {
            Some(_) if idle => {
                warnings.push("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight".into())
            }
            Some(shares) if unified => put(&mut out, "CPUWeight", Variant::U64(v2::weight(shares))),
            Some(shares) => put(&mut out, "CPUShares", Variant::U64(shares)),
            None => {}
        }
        quota(&mut out, set(cpu.quota()), set(cpu.period()));
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(list) = list.as_deref().filter(|l| unified && !l.is_empty()) {
                put(&mut out, name, Variant::from(bits(list)?));
            }
        }
    }
    if let Some(pids) = r.pids().map(|p| p.limit()).filter(|n| *n != 0) {
        put(&mut out, "TasksMax", or_infinity(pids));
    }
    if !unified && let Some(weight) = r.block_io().as_ref().and_then(|io| set(io.weight())) {
        put(&mut out, "BlockIOWeight", Variant::U64(weight.into()));
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

fn or_infinity(n: i64) -> Variant<'static> {
    Variant::U64(u64::try_from(n).unwrap_or(u64::MAX))
}

/// systemd counts in whole percents of a CPU: rounded up, so that the container's own file, set after, is never more.
fn quota(out: &mut Properties, quota: Option<i64>, period: Option<u64>) {
    if let Some(period) = period {
        put(out, "CPUQuotaPeriodUSec", Variant::U64(period));
    }
    if quota.is_some() || period.is_some() {
        let per_second = quota.and_then(|q| u64::try_from(q).ok()).map_or(u64::MAX, |q| {
            q.saturating_mul(1_000_000).div_ceil(period.unwrap_or(100_000)).next_multiple_of(10_000)
        });
        put(out, "CPUQuotaPerSecUSec", Variant::U64(per_second));
    }
}

fn from_file(out: &mut Properties, file: &str, value: &str) -> Result<()> {
    let bad = || Error::Refused(format!("unified resource {file:?} value invalid: {value:?}"));
    let number = |text: &str| if text == "max" { Ok(u64::MAX) } else { text.parse().map_err(|_| bad()) };
    let name = match file {
        "cpu.idle" if value == "1" => {
            put(out, "CPUWeight", Variant::U64(0));
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
            put(out, name, Variant::from(bits(value)?));
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
    put(out, name, Variant::U64(number(value)?));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn limits(value: serde_json::Value) -> Properties {
        properties(&serde_json::from_value(value).unwrap(), true).unwrap().0
    }

    #[test]
    fn limits_as_properties() {
        let got = limits(
            json!({"memory": {"limit": 64, "swap": 100}, "cpu": {"quota": 12345, "period": 100_000, "cpus": "0-2,9"},
            "pids": {"limit": -1}, "unified": {"memory.high": "7", "cpu.max": "max 5000", "io.max": "x"}}),
        );
        let expected: Properties = vec![
            ("MemoryMax".into(), Variant::U64(64)),
            ("MemorySwapMax".into(), Variant::U64(36)),
            ("CPUQuotaPeriodUSec".into(), Variant::U64(100_000)),
            ("CPUQuotaPerSecUSec".into(), Variant::U64(130_000)),
            ("AllowedCPUs".into(), Variant::from(vec![7_u8, 2])),
            ("TasksMax".into(), Variant::U64(u64::MAX)),
            ("CPUQuotaPeriodUSec".into(), Variant::U64(5000)),
            ("CPUQuotaPerSecUSec".into(), Variant::U64(u64::MAX)),
            ("MemoryHigh".into(), Variant::U64(7)),
        ];
        assert_eq!(got, expected);
        assert!(bits("1-").is_err() && bits("3-1").is_err() && bits("").is_err() && bits("99999").is_err());
    }
}
