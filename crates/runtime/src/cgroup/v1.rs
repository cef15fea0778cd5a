//! Limits of the specification as writes into cgroup v1 files. Pure.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use crate::{Error, Result};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The controller whose hierarchy has the file.
    pub controller: &'static str,
    /// The file.
    pub file: String,
    /// What to write.
    pub value: String,
    /// Whether it may fail or be absent.
    pub optional: bool,
}

fn put(out: &mut Vec<Write>, controller: &'static str, file: &str, value: impl ToString) {
    out.push(Write { controller, file: file.to_owned(), value: value.to_string(), optional: false });
}

/// The writes for a configuration, in an order that the kernel accepts on a fresh cgroup. With `devices`, everything is
/// denied first but what every container needs.
///
/// # Errors
/// [`Error::Refused`] for values that make no sense.
pub fn writes(resources: &LinuxResources, devices: bool) -> Result<Vec<Write>> {
    let mut out = Vec::new();
    if devices {
        device_rules(&mut out, resources.devices().as_deref().unwrap_or(&[]))?;
    }
    if let Some(memory) = resources.memory() {
        memory_limits(&mut out, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(&mut out, cpu);
    }
    if let Some(pids) = resources.pids() {
        match pids.limit() {
            0 => {}
            n if n < 0 => put(&mut out, "pids", "pids.max", "max"),
            n => put(&mut out, "pids", "pids.max", n),
        }
    }
    if let Some(io) = resources.block_io() {
        block_io(&mut out, io);
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        put(&mut out, "hugetlb", &format!("hugetlb.{}.limit_in_bytes", huge.page_size()), huge.limit());
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            put(&mut out, "net_cls", "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            put(&mut out, "net_prio", "net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()));
        }
    }
    Ok(out)
}

fn memory_limits(out: &mut Vec<Write>, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|n| *n != 0);
    let swap = memory.swap().filter(|n| *n != 0);
    if let (Some(limit), Some(swap)) = (limit, swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::Refused(format!("memory.swap {swap} is less than memory.limit {limit}")));
    }
    if let Some(limit) = limit {
        put(out, "memory", "memory.limit_in_bytes", limit);
    }
    if let Some(swap) = swap {
        put(out, "memory", "memory.memsw.limit_in_bytes", swap);
    }
    if let Some(soft) = memory.reservation().filter(|n| *n != 0) {
        put(out, "memory", "memory.soft_limit_in_bytes", soft);
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Error::Refused(format!("memory.swappiness {swappiness} is not within 0 to 100")));
        }
        put(out, "memory", "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        put(out, "memory", "memory.oom_control", 1);
    }
    Ok(())
}

fn cpu_limits(out: &mut Vec<Write>, cpu: &LinuxCpu) {
    if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
        put(out, "cpu", "cpu.shares", shares);
    }
    if let Some(period) = cpu.period().filter(|n| *n != 0) {
        put(out, "cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota().filter(|n| *n != 0) {
        put(out, "cpu", "cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = cpu.burst() {
        put(out, "cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|n| *n != 0) {
        put(out, "cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|n| *n != 0) {
        put(out, "cpu", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = cpu.idle() {
        put(out, "cpu", "cpu.idle", idle);
    }
    if let Some(cpus) = cpu.cpus().as_deref().filter(|c| !c.is_empty()) {
        put(out, "cpuset", "cpuset.cpus", cpus);
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|c| !c.is_empty()) {
        put(out, "cpuset", "cpuset.mems", mems);
    }
}

fn block_io(out: &mut Vec<Write>, io: &LinuxBlockIo) {
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        // The file depends on the I/O scheduler; without one that knows weights there is none, which is no reason to fail.
        for file in ["blkio.weight", "blkio.bfq.weight"] {
            out.push(Write { controller: "blkio", file: file.into(), value: weight.to_string(), optional: true });
        }
    }
    let mut throttle = |file: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for d in devices.iter().flatten() {
            put(out, "blkio", file, format!("{}:{} {}", d.major(), d.minor(), d.rate()));
        }
    };
    throttle("blkio.throttle.read_bps_device", io.throttle_read_bps_device());
    throttle("blkio.throttle.write_bps_device", io.throttle_write_bps_device());
    throttle("blkio.throttle.read_iops_device", io.throttle_read_iops_device());
    throttle("blkio.throttle.write_iops_device", io.throttle_write_iops_device());
}

/// Devices every container may use (runc's list): making any node, the pseudo devices, terminals.
const ALWAYS: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

fn device_rules(out: &mut Vec<Write>, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let mut all_allowed = false;
    put(out, "devices", "devices.deny", "a");
    for rule in rules {
        let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
        if !access.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(Error::Refused(format!("device access {access:?} is not of r, w, m")));
        }
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A)
                if rule.major().is_none_or(|n| n < 0) && rule.minor().is_none_or(|n| n < 0) =>
            {
                all_allowed = rule.allow();
                put(out, "devices", file, "a");
                continue;
            }
            None | Some(LinuxDeviceType::A) => {
                return Err(Error::Refused("a device rule of type a has a number".into()));
            }
            Some(LinuxDeviceType::B) => "b",
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
            Some(LinuxDeviceType::P) => continue,
        };
        put(out, "devices", file, format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor())));
    }
    if !all_allowed {
        for rule in ALWAYS {
            put(out, "devices", "devices.allow", rule);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(value: serde_json::Value, devices: bool) -> Result<Vec<String>> {
        let resources: LinuxResources = serde_json::from_value(value).unwrap();
        Ok(writes(&resources, devices)?.iter().map(|w| format!("{}={}", w.file, w.value)).collect())
    }

    #[test]
    fn limits() {
        let got = of(
            json!({"memory": {"limit": 67108864, "swap": 67108864, "disableOOMKiller": true},
                   "cpu": {"quota": 50000, "period": 100000, "burst": 1000, "cpus": "0-1"}, "pids": {"limit": 1}}),
            false,
        )
        .unwrap();
        assert_eq!(
            got,
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "memory.oom_control=1",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=1000",
                "cpuset.cpus=0-1",
                "pids.max=1"
            ]
        );
    }

    #[test]
    fn nothing_for_nothing() {
        assert!(of(json!({}), false).unwrap().is_empty());
        assert!(
            of(json!({"memory": {"limit": 0}, "cpu": {"shares": 0}, "pids": {"limit": 0}}), false).unwrap().is_empty()
        );
    }

    #[test]
    fn devices_are_denied_first() {
        let got = of(json!({}), true).unwrap();
        assert_eq!(got[0], "devices.deny=a");
        assert!(got.contains(&"devices.allow=c 1:3 rwm".to_owned()));
        let got = of(json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]}), true).unwrap();
        assert!(got.contains(&"devices.allow=c 10:229 rw".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(of(json!({"memory": {"limit": 100, "swap": 50}}), false).is_err());
        assert!(of(json!({"memory": {"swappiness": 101}}), false).is_err());
        assert!(of(json!({"devices": [{"allow": true, "access": "x"}]}), true).is_err());
    }
}
