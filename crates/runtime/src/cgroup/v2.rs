//! Limits of the specification as writes into cgroup v2 files. Pure. Conversions are runc's, so that callers see the values
//! they know; the files are those of the kernel's admin-guide/cgroup-v2.rst.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::setting::{Need, Plan, Setting, or_max, set};
use crate::{Error, Result};

/// Microseconds; the kernel's default of `cpu.max`.
const PERIOD: u64 = 100_000;

/// The writes for a configuration, in an order that the kernel accepts.
///
/// # Errors
/// [`Error::Refused`] for values that make no sense.
pub fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut out = Plan::default();
    if let Some(pids) = resources.pids().map(|p| p.limit()).filter(|n| *n != 0) {
        out.must("pids.max", or_max(pids));
    }
    if let Some(memory) = resources.memory() {
        memory_limits(&mut out, memory)?;
    }
    if let Some(io) = resources.block_io() {
        block_io(&mut out, io);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut out, cpu);
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        // Go's callers write the unsigned maximum for no limit.
        out.must(&format!("hugetlb.{}.max", huge.page_size()), or_max(huge.limit()));
        out.add(Need::IfThere, &format!("hugetlb.{}.rsvd.max", huge.page_size()), or_max(huge.limit()));
    }
    super::v1::rdma(&mut out, resources);
    unified(&mut out, resources)?;
    Ok(out.0)
}

fn memory_limits(out: &mut Plan, memory: &LinuxMemory) -> Result<()> {
    if let Some(swap) = swap(set(memory.swap()).unwrap_or(0), set(memory.limit()).unwrap_or(0))? {
        // Without swap in the kernel, "as much as you like" and "none" hold by themselves.
        let need = if swap > 0 { Need::Must } else { Need::IfThere };
        out.add(need, "memory.swap.max", or_max(swap));
    }
    if let Some(limit) = set(memory.limit()) {
        out.must("memory.max", or_max(limit));
    }
    if let Some(low) = set(memory.reservation()) {
        out.must("memory.low", or_max(low));
    }
    Ok(())
}

/// `memory.swap` is memory and swap together; `memory.swap.max` is swap alone. 0 is not set, -1 no limit.
pub(super) fn swap(swap: i64, memory: i64) -> Result<Option<i64>> {
    match (swap, memory) {
        (0, -1) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(-1)),
        (_, 0 | -1) => Err(Error::Refused("unable to set swap limit without memory limit".into())),
        (s, m) if s < 0 || m < 0 => Err(Error::Refused(format!("invalid memory.limit {m} or memory.swap {s}"))),
        (s, m) if s < m => Err(Error::Refused("memory+swap limit should be >= memory limit".into())),
        (s, m) => Ok(Some(s - m)),
    }
}

fn cpu_limits(out: &mut Plan, cpu: &LinuxCpu) {
    if let Some(idle) = cpu.idle() {
        out.must("cpu.idle", idle);
    }
    // The kernel refuses a weight for what only runs when nothing else does.
    if let Some(shares) = set(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
        out.must("cpu.weight", weight(shares));
    }
    let (quota, period) = (set(cpu.quota()), set(cpu.period()));
    let limited = quota.is_some() || period.is_some();
    if let Some(burst) = cpu.burst() {
        // It must fit the quota, the old one or the new one.
        out.add(if limited { Need::Try } else { Need::Must }, "cpu.max.burst", burst);
    }
    if limited {
        let quota = quota.filter(|q| *q > 0).map_or_else(|| "max".to_owned(), |q| q.to_string());
        out.must("cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD)));
        if let Some(burst) = cpu.burst() {
            out.must("cpu.max.burst", burst);
        }
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            out.must(file, value);
        }
    }
}

/// CPU shares (2 to 262144, default 1024) as a weight (1 to 10000, default 100): a curve through these three points.
#[must_use]
pub fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// A blkio weight (10 to 1000) as an io weight (1 to 10000).
#[must_use]
pub fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.max(10)) - 10) * 9999 / 990
}

fn block_io(out: &mut Plan, io: &LinuxBlockIo) {
    if let Some(weight) = set(io.weight()) {
        // The bfq scheduler has a file of its own; where it is, it is the one that counts.
        out.add(Need::IfThere, "io.bfq.weight", weight);
        out.add(Need::WarnIfAbsent, "io.weight", io_weight(weight));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = set(device.weight()) {
            out.add(Need::IfThere, "io.bfq.weight", format!("{}:{} {weight}", device.major(), device.minor()));
        }
    }
    let mut throttle = |key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for d in devices.iter().flatten() {
            let rate = if d.rate() == 0 { "max".to_owned() } else { d.rate().to_string() };
            out.must("io.max", format!("{}:{} {key}={rate}", d.major(), d.minor()));
        }
    };
    throttle("rbps", io.throttle_read_bps_device());
    throttle("wbps", io.throttle_write_bps_device());
    throttle("riops", io.throttle_read_iops_device());
    throttle("wiops", io.throttle_write_iops_device());
}

/// `unified`: files by name, after everything else, since they are the more exact words. A value of several lines is
/// several writes: the kernel takes one device at a time.
fn unified(out: &mut Plan, resources: &LinuxResources) -> Result<()> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        if file.contains('/') {
            return Err(Error::Refused(format!("unified resource {file:?} must be a file name (no slashes)")));
        }
        if !file.contains('.') {
            return Err(Error::Refused(format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")));
        }
        value.lines().filter(|l| !l.trim().is_empty()).for_each(|line| out.must(file, line));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(value: serde_json::Value) -> Result<Vec<String>> {
        let resources: LinuxResources = serde_json::from_value(value).unwrap();
        Ok(settings(&resources)?.iter().map(|w| format!("{}={}", w.file, w.value)).collect())
    }

    #[test]
    fn memory_and_swap() {
        let got = of(json!({"memory": {"limit": 64, "swap": 100, "reservation": 32}})).unwrap();
        assert_eq!(got, ["memory.swap.max=36", "memory.max=64", "memory.low=32"]);
        assert_eq!(of(json!({"memory": {"limit": 64, "swap": 64}})).unwrap()[0], "memory.swap.max=0");
        assert_eq!(of(json!({"memory": {"limit": -1}})).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(of(json!({"memory": {"swap": -1}})).unwrap(), ["memory.swap.max=max"]);
        assert!(of(json!({"memory": {"limit": 64, "swap": 32}})).is_err());
        assert!(of(json!({"memory": {"swap": 32}})).is_err());
    }

    #[test]
    fn cpu() {
        let got =
            of(json!({"cpu": {"shares": 3333, "quota": 40000, "period": 50000, "burst": 500, "cpus": "0"}})).unwrap();
        assert_eq!(
            got,
            ["cpu.weight=256", "cpu.max.burst=500", "cpu.max=40000 50000", "cpu.max.burst=500", "cpuset.cpus=0"]
        );
        assert_eq!(of(json!({"cpu": {"quota": -1}})).unwrap(), ["cpu.max=max 100000"]);
        assert_eq!(of(json!({"cpu": {"idle": 1, "shares": 512}})).unwrap(), ["cpu.idle=1"]);
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 100, 10_000));
    }

    #[test]
    fn block_devices() {
        let got =
            of(json!({"blockIO": {"weight": 750, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}}))
            .unwrap();
        assert_eq!(got, ["io.bfq.weight=750", "io.weight=7475", "io.max=8:0 rbps=1000", "io.max=8:0 wiops=max"]);
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    #[test]
    fn unified_comes_last_and_line_by_line() {
        let got =
            of(json!({"pids": {"limit": -1}, "unified": {"pids.max": "42", "io.max": "8:0 riops=1\n8:16 riops=2\n"}}))
                .unwrap();
        assert_eq!(got, ["pids.max=max", "io.max=8:0 riops=1", "io.max=8:16 riops=2", "pids.max=42"]);
        assert!(of(json!({"unified": {"../pids.max": "1"}})).is_err());
        assert!(of(json!({"unified": {"pids": "1"}})).is_err());
    }
}
