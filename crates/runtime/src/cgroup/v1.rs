//! Limits of the specification as writes into cgroup v1 files. Pure.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::device::{Rule, v1_line};
use super::setting::{Need, Plan, Setting, set};
use crate::{Error, Result};

/// The writes for a configuration, in an order that the kernel accepts whatever the values were before.
///
/// # Errors
/// [`Error::Refused`] for values that make no sense.
pub fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::Refused("invalid configuration: cannot use unified resources on cgroup v1".into()));
    }
    let mut out = Plan::default();
    if let Some(memory) = resources.memory() {
        memory_limits(&mut out, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut out, cpu);
    }
    if let Some(limit) = resources.pids().map(|p| p.limit()).filter(|n| *n != 0) {
        out.must("pids.max", super::setting::or_max(limit));
    }
    if let Some(io) = resources.block_io() {
        block_io(&mut out, io);
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        out.must(&format!("hugetlb.{}.limit_in_bytes", huge.page_size()), huge.limit());
        out.add(Need::IfThere, &format!("hugetlb.{}.rsvd.limit_in_bytes", huge.page_size()), huge.limit());
    }
    rdma(&mut out, resources);
    if let Some(network) = resources.network() {
        if let Some(class) = set(network.class_id()) {
            out.must("net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            out.must("net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()));
        }
    }
    Ok(out.0)
}

/// Device rules as writes.
#[must_use]
pub fn devices(rules: &[Rule]) -> Vec<Setting> {
    let mut out = Plan::default();
    for (file, line) in rules.iter().map(v1_line) {
        out.must(file, line);
    }
    out.0
}

/// The same file in both versions.
pub(super) fn rdma(out: &mut Plan, resources: &LinuxResources) {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (name, limits) in devices {
        let part = |key: &str, n: Option<u32>| n.map_or_else(String::new, |n| format!(" {key}={n}"));
        let value =
            format!("{name}{}{}", part("hca_handle", limits.hca_handles()), part("hca_object", limits.hca_objects()));
        out.must("rdma.max", value);
    }
}

fn memory_limits(out: &mut Plan, memory: &LinuxMemory) -> Result<()> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let (limit, swap) = (set(memory.limit()), set(memory.swap()));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::Refused(format!("memory.swap {swap} is less than memory.limit {limit}")));
    }
    // Memory and swap together may never be less than memory alone: raising begins with the one, lowering with the other,
    // so the first is tried before and set after.
    if let (Some(_), Some(swap)) = (limit, swap) {
        out.add(Need::Try, SWAP, swap);
    }
    if limit == Some(-1) && swap.is_none() {
        out.add(Need::IfThere, SWAP, -1);
    }
    if let Some(limit) = limit {
        out.must("memory.limit_in_bytes", limit);
    }
    if let Some(swap) = swap {
        let need = if swap == -1 { Need::IfThere } else { Need::Must };
        out.add(need, SWAP, swap);
    }
    if let Some(soft) = set(memory.reservation()) {
        out.must("memory.soft_limit_in_bytes", soft);
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Error::Refused(format!("memory.swappiness {swappiness} is not within 0 to 100")));
        }
        out.must("memory.swappiness", swappiness);
    }
    if let Some(disable) = memory.disable_oom_killer() {
        // Off is how it begins: only for `update` it is news.
        out.add(if disable { Need::Must } else { Need::Try }, "memory.oom_control", u8::from(disable));
    }
    Ok(())
}

fn cpu_limits(out: &mut Plan, cpu: &LinuxCpu) {
    if let Some(shares) = set(cpu.shares()) {
        out.must("cpu.shares", shares);
    }
    // Quota over period may not exceed the parent's, nor the burst the quota, with the old values of the others: what may
    // come too early is tried before and set after.
    let (quota, period) = (set(cpu.quota()), set(cpu.period()));
    let early = if quota.is_some() { Need::Try } else { Need::Must };
    if let Some(period) = period {
        out.add(early, "cpu.cfs_period_us", period);
    }
    if let Some(burst) = cpu.burst() {
        out.add(if quota.is_some() { Need::Try } else { Need::IfThere }, "cpu.cfs_burst_us", burst);
    }
    if let Some(quota) = quota {
        out.must("cpu.cfs_quota_us", quota);
        if let Some(period) = period {
            out.must("cpu.cfs_period_us", period);
        }
        if let Some(burst) = cpu.burst() {
            out.add(Need::IfThere, "cpu.cfs_burst_us", burst);
        }
    }
    let (runtime, period) = (set(cpu.realtime_runtime()), set(cpu.realtime_period()));
    if let Some(period) = period {
        out.add(if runtime.is_some() { Need::Try } else { Need::WarnIfAbsent }, "cpu.rt_period_us", period);
    }
    if let Some(runtime) = runtime {
        out.add(Need::WarnIfAbsent, "cpu.rt_runtime_us", runtime);
        if let Some(period) = period {
            out.add(Need::IfThere, "cpu.rt_period_us", period);
        }
    }
    if let Some(idle) = cpu.idle() {
        out.must("cpu.idle", idle);
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            out.must(file, value);
        }
    }
}

fn block_io(out: &mut Plan, io: &LinuxBlockIo) {
    // Whether there are weights depends on the I/O scheduler; it has a file of its own for bfq.
    if let Some(weight) = set(io.weight()) {
        out.add(Need::IfThere, "blkio.bfq.weight", weight);
        out.add(Need::WarnIfAbsent, "blkio.weight", weight);
    }
    if let Some(weight) = set(io.leaf_weight()) {
        out.add(Need::WarnIfAbsent, "blkio.leaf_weight", weight);
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = set(device.weight()) {
            out.add(Need::IfThere, "blkio.bfq.weight_device", format!("{number} {weight}"));
            out.add(Need::WarnIfAbsent, "blkio.weight_device", format!("{number} {weight}"));
        }
        if let Some(weight) = set(device.leaf_weight()) {
            out.add(Need::WarnIfAbsent, "blkio.leaf_weight_device", format!("{number} {weight}"));
        }
    }
    let mut throttle = |file: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for d in devices.iter().flatten() {
            out.must(file, format!("{}:{} {}", d.major(), d.minor(), d.rate()));
        }
    };
    throttle("blkio.throttle.read_bps_device", io.throttle_read_bps_device());
    throttle("blkio.throttle.write_bps_device", io.throttle_write_bps_device());
    throttle("blkio.throttle.read_iops_device", io.throttle_read_iops_device());
    throttle("blkio.throttle.write_iops_device", io.throttle_write_iops_device());
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
    fn limits() {
        let got = of(json!({"memory": {"limit": 67108864, "swap": 67108864, "disableOOMKiller": true, "kernel": 5},
                   "cpu": {"quota": 50000, "period": 100000, "burst": 1000, "cpus": "0-1"}, "pids": {"limit": 1}}))
        .unwrap();
        assert_eq!(
            got,
            [
                "memory.memsw.limit_in_bytes=67108864",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "memory.oom_control=1",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_burst_us=1000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_burst_us=1000",
                "cpuset.cpus=0-1",
                "pids.max=1"
            ]
        );
    }

    #[test]
    fn nothing_for_nothing() {
        assert!(of(json!({})).unwrap().is_empty());
        assert!(of(json!({"memory": {"limit": 0}, "cpu": {"shares": 0}, "pids": {"limit": 0}})).unwrap().is_empty());
    }

    #[test]
    fn a_burst_alone_is_set() {
        assert_eq!(of(json!({"cpu": {"burst": 0}})).unwrap(), ["cpu.cfs_burst_us=0"]);
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap_either() {
        let got = of(json!({"memory": {"limit": -1}})).unwrap();
        assert_eq!(got, ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]);
    }

    #[test]
    fn networks_and_rdma() {
        let got = of(json!({"network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 3}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}))
        .unwrap();
        assert_eq!(
            got,
            ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "net_cls.classid=5", "net_prio.ifpriomap=eth0 3"]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(of(json!({"memory": {"limit": 100, "swap": 50}})).is_err());
        assert!(of(json!({"memory": {"swappiness": 101}})).is_err());
        assert!(of(json!({"unified": {"memory.max": "1"}})).unwrap_err().to_string().contains("invalid configuration"));
    }
}
