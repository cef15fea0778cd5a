//! What a container uses, in the words of runc's `events` (its `types/events.go`; containerd's go-runc parses them).

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Placement;

/// Nanoseconds of one clock tick in `cpuacct.stat` (`USER_HZ` is 100).
const TICK: u64 = 10_000_000;

impl Placement {
    /// One reading. What the machine does not tell is absent or 0.
    #[must_use]
    pub fn stats(&self) -> Value {
        let reading = Reading { cgroup: self };
        json!({
            "cpu": reading.cpu(),
            "cpuset": {},
            "memory": reading.memory(),
            "pids": reading.pids(),
            "blkio": reading.block_io(),
            "hugetlb": reading.huge_pages(),
            "intel_rdt": {},
            "network_interfaces": null,
        })
    }
}

struct Reading<'a> {
    cgroup: &'a Placement,
}

impl Reading<'_> {
    fn text(&self, file: &str) -> String {
        let controller = file.split('.').next().unwrap_or_default();
        self.cgroup.with(controller).and_then(|d| fs::read_to_string(d.path.join(file)).ok()).unwrap_or_default()
    }

    /// "max" is the largest number, as Go's callers have it.
    fn number(&self, file: &str) -> u64 {
        let text = self.text(file);
        if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
    }

    fn cpu(&self) -> Value {
        if !self.cgroup.unified {
            let (times, throttled) = (pairs(&self.text("cpuacct.stat")), pairs(&self.text("cpu.stat")));
            let per_cpu = self.text("cpuacct.usage_percpu");
            return json!({
                "usage": {
                    "total": self.number("cpuacct.usage"),
                    "percpu": per_cpu.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u64>>(),
                    "kernel": of(&times, "system") * TICK,
                    "user": of(&times, "user") * TICK,
                },
                "throttling": {
                    "periods": of(&throttled, "nr_periods"),
                    "throttledPeriods": of(&throttled, "nr_throttled"),
                    "throttledTime": of(&throttled, "throttled_time"),
                },
            });
        }
        let stat = pairs(&self.text("cpu.stat"));
        with_pressure(
            json!({
                "usage": {
                    "total": of(&stat, "usage_usec") * 1000,
                    "kernel": of(&stat, "system_usec") * 1000,
                    "user": of(&stat, "user_usec") * 1000,
                },
                "throttling": {
                    "periods": of(&stat, "nr_periods"),
                    "throttledPeriods": of(&stat, "nr_throttled"),
                    "throttledTime": of(&stat, "throttled_usec") * 1000,
                },
            }),
            &self.text("cpu.pressure"),
        )
    }

    fn memory(&self) -> Value {
        let raw = pairs(&self.text("memory.stat"));
        if !self.cgroup.unified {
            let entry = |name: &str| {
                json!({
                    "limit": self.number(&format!("memory.{name}limit_in_bytes")),
                    "usage": self.number(&format!("memory.{name}usage_in_bytes")),
                    "max": self.number(&format!("memory.{name}max_usage_in_bytes")),
                    "failcnt": self.number(&format!("memory.{name}failcnt")),
                })
            };
            return json!({"cache": of(&raw, "cache"), "usage": entry(""), "swap": entry("memsw."),
                "kernel": entry("kmem."), "kernelTCP": entry("kmem.tcp."), "raw": raw});
        }
        let events = pairs(&self.text("memory.events"));
        let (usage, limit) = (self.number("memory.current"), self.number("memory.max"));
        // As on v1, swap is memory and swap together.
        let (swap, swap_limit) = (self.number("memory.swap.current"), self.number("memory.swap.max"));
        with_pressure(
            json!({
                "cache": of(&raw, "file"),
                "usage": {"limit": limit, "usage": usage, "max": self.number("memory.peak"), "failcnt": of(&events, "max")},
                "swap": {"limit": swap_limit.saturating_add(limit), "usage": swap + usage, "failcnt": 0},
                "kernel": {"limit": 0, "failcnt": 0},
                "kernelTCP": {"limit": 0, "failcnt": 0},
                "raw": raw,
            }),
            &self.text("memory.pressure"),
        )
    }

    fn pids(&self) -> Value {
        let limit = self.number("pids.max");
        json!({"current": self.number("pids.current"), "limit": if limit == u64::MAX { 0 } else { limit }})
    }

    fn block_io(&self) -> Value {
        if !self.cgroup.unified {
            let first =
                |names: [&str; 2]| names.map(|n| block_lines(&self.text(n))).into_iter().find(|v| !v.is_empty());
            return json!({
                "ioServiceBytesRecursive": first(["blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"]),
                "ioServicedRecursive": first(["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"]),
            });
        }
        let text = self.text("io.stat");
        let keys = |read: &str, write: &str| -> Vec<Value> { io_stat(&text, &[(read, "Read"), (write, "Write")]) };
        with_pressure(
            json!({"ioServiceBytesRecursive": keys("rbytes", "wbytes"), "ioServicedRecursive": keys("rios", "wios")}),
            &self.text("io.pressure"),
        )
    }

    fn huge_pages(&self) -> Value {
        let mut all = Map::new();
        let Some(dir) = self.cgroup.with("hugetlb") else { return Value::Object(all) };
        let v1 = !self.cgroup.unified;
        for size in page_sizes(&dir.path) {
            let of = |v1_name: &str, v2_name: &str| {
                self.number(&format!("hugetlb.{size}.{}", if v1 { v1_name } else { v2_name }))
            };
            let failures = if v1 {
                of("failcnt", "")
            } else {
                self::of(&pairs(&self.text(&format!("hugetlb.{size}.events"))), "max")
            };
            let peak = if v1 { of("max_usage_in_bytes", "") } else { 0 };
            all.insert(
                size.clone(),
                json!({"usage": of("usage_in_bytes", "current"), "max": peak, "failcnt": failures}),
            );
        }
        Value::Object(all)
    }
}

/// `2MB` of `hugetlb.2MB.max`.
fn page_sizes(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|e| Some(e.file_name().to_str()?.strip_prefix("hugetlb.")?.split('.').next()?.to_owned()))
        .collect();
    sizes.sort();
    sizes.dedup();
    sizes
}

/// `name number` by line.
fn pairs(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), json!(v.trim().parse::<u64>().ok()?))))
        .collect()
}

fn of(pairs: &Map<String, Value>, key: &str) -> u64 {
    pairs.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// `8:0 Read 512` by line.
fn block_lines(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = (words.next()?, words.next()?);
        Some(json!({"major": major.parse::<u64>().ok()?, "minor": minor.parse::<u64>().ok()?, "op": op,
            "value": value.parse::<u64>().ok()?}))
    };
    text.lines().filter_map(entry).collect()
}

/// `8:0 rbytes=1 wbytes=2 ...` by line.
fn io_stat(text: &str, wanted: &[(&str, &str)]) -> Vec<Value> {
    let mut out = vec![];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            if let Some((_, op)) = wanted.iter().find(|(k, _)| *k == key) {
                let number = |t: &str| t.parse::<u64>().unwrap_or(0);
                out.push(json!({"major": number(major), "minor": number(minor), "op": op, "value": number(value)}));
            }
        }
    }
    out
}

/// Pressure stall information, where the kernel has it: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn with_pressure(mut stats: Value, text: &str) -> Value {
    let mut psi = Map::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(kind) = words.next() else { continue };
        let numbers = words.filter_map(|w| w.split_once('=')).filter_map(|(k, v)| {
            let number = if k == "total" { json!(v.parse::<u64>().ok()?) } else { json!(v.parse::<f64>().ok()?) };
            Some((k.to_owned(), number))
        });
        psi.insert(kind.to_owned(), Value::Object(numbers.collect()));
    }
    if !psi.is_empty() {
        stats["psi"] = Value::Object(psi);
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(of(&pairs("oom 1\noom_kill 2\n"), "oom_kill"), 2);
        assert_eq!(
            block_lines("8:0 Read 512\nTotal 512\n"),
            [json!({"major": 8, "minor": 0, "op": "Read", "value": 512})]
        );
        assert_eq!(
            io_stat("254:0 rbytes=3 wbytes=4 rios=1\n", &[("rbytes", "Read"), ("wbytes", "Write")])[1],
            json!({"major": 254, "minor": 0, "op": "Write", "value": 4})
        );
    }

    #[test]
    fn pressure() {
        let got = with_pressure(json!({}), "some avg10=0.50 avg60=0.00 avg300=0.00 total=77\n");
        assert_eq!(got["psi"]["some"]["avg10"], 0.5);
        assert_eq!(got["psi"]["some"]["total"], 77);
        assert_eq!(with_pressure(json!({}), ""), json!({}));
    }
}
