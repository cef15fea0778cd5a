//! Rows of `stats`.

use api::supervisor::v1::Stats;
use serde_json::{Value, json};

use super::listing::{Column, id};

/// Docker's columns.
pub const COLUMNS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// One row; a container without a memory limit has the host's memory as its limit.
pub fn row(stats: &Stats, whole: bool, host_memory: u64) -> Value {
    let limit =
        if stats.memory_limit_bytes == 0 { host_memory } else { stats.memory_limit_bytes.min(host_memory.max(1)) };
    let percent = if limit == 0 { 0.0 } else { stats.memory_usage_bytes as f64 * 100.0 / limit as f64 };
    let io = |one, other| format!("{} / {}", console::human_size(one), console::human_size(other));
    json!({
        "ID": id(&stats.id, whole), "Container": id(&stats.id, whole), "Name": stats.name,
        "CPUPerc": format!("{:.2}%", stats.cpu_percent),
        "MemUsage": format!("{} / {}", binary_size(stats.memory_usage_bytes), binary_size(limit)),
        "MemPerc": format!("{percent:.2}%"),
        "NetIO": io(stats.network_rx_bytes, stats.network_tx_bytes),
        "BlockIO": io(stats.block_read_bytes, stats.block_write_bytes),
        "PIDs": stats.pids.to_string(),
    })
}

/// "1.5MiB", four significant digits, as docker shows memory.
fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let stats = Stats {
            memory_usage_bytes: 1_572_864,
            memory_limit_bytes: 64 << 20,
            cpu_percent: 12.345,
            network_rx_bytes: 1000,
            ..Default::default()
        };
        let row = super::row(&stats, false, 24 << 30);
        assert_eq!((row["MemUsage"].as_str(), row["MemPerc"].as_str()), (Some("1.5MiB / 64MiB"), Some("2.34%")));
        assert_eq!((row["CPUPerc"].as_str(), row["NetIO"].as_str()), (Some("12.35%"), Some("1kB / 0B")));
        assert_eq!(binary_size(512), "512B");
        assert_eq!(super::row(&Stats::default(), false, 1 << 30)["MemUsage"], "0B / 1GiB");
    }
}
