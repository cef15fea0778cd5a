//! What containers use: cgroup files and the network namespace's counters.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::{Error, Supervisor, blocking};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Span of the first CPU percentage.
const FIRST_SPAN: Duration = Duration::from_millis(100);

/// One reading of one container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Full id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// From its cgroups.
    pub usage: sys::cgroup::Usage,
    /// Percent of one CPU since the last sample.
    pub cpu_percent: f64,
    /// CPUs of the machine.
    pub online_cpus: u32,
    /// Bytes received, without loopback.
    pub network_rx: u64,
    /// Bytes sent.
    pub network_tx: u64,
}

impl Supervisor {
    /// Samples of these containers (empty: of all running ones), every `interval` (0: one second), or `once`.
    pub async fn stats(
        &self,
        references: Vec<String>,
        once: bool,
        interval: Duration,
    ) -> Result<mpsc::Receiver<Result<Vec<Sample>, Error>>, Error> {
        let this = self.clone();
        let named = references.clone();
        // Unknown names are told at once, not in the middle of the stream.
        blocking(move || named.iter().try_for_each(|name| this.get(name).map(|_| ()))).await?;
        let interval = if interval.is_zero() { DEFAULT_INTERVAL } else { interval };
        let (sender, receiver) = mpsc::channel(1);
        let this = self.clone();
        tokio::spawn(async move {
            let mut before: HashMap<String, Sample> = HashMap::new();
            let mut first = true;
            loop {
                let samples = match this.clone().sample(references.clone()).await {
                    Ok(samples) => samples,
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                };
                let samples: Vec<Sample> = samples.into_iter().map(|s| with_percent(s, &before)).collect();
                before = samples.iter().map(|s| (s.id.clone(), s.clone())).collect();
                // The first reading only gives the second one something to compare with.
                if !first && (sender.send(Ok(samples)).await.is_err() || once) {
                    return;
                }
                let pause = if first { FIRST_SPAN } else { interval };
                first = false;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }

    async fn sample(self, references: Vec<String>) -> Result<Vec<Sample>, Error> {
        blocking(move || {
            let containers = if references.is_empty() {
                self.list()?.into_iter().filter(|c| c.observed.status.is_live()).collect()
            } else {
                references.iter().map(|name| self.get(name)).collect::<Result<Vec<_>, _>>()?
            };
            Ok(containers.iter().map(|c| read(&c.id, c.name(), c.observed.pid)).collect())
        })
        .await
    }
}

/// A container that does not run has a sample of zeros.
fn read(id: &str, name: &str, pid: i32) -> Sample {
    let time = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let mut sample = Sample { id: id.into(), name: name.into(), time, online_cpus: cpus, ..Sample::default() };
    if pid > 0 {
        sample.usage = sys::cgroup::Paths::of(pid).map(|paths| paths.usage()).unwrap_or_default();
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        (sample.network_rx, sample.network_tx) = network(&devices);
    }
    sample
}

fn with_percent(mut sample: Sample, before: &HashMap<String, Sample>) -> Sample {
    if let Some(old) = before.get(&sample.id) {
        let span = sample.time - old.time;
        let used = sample.usage.cpu_ns.saturating_sub(old.usage.cpu_ns);
        if span > 0 {
            sample.cpu_percent = used as f64 / span as f64 * 100.0;
        }
    }
    sample
}

/// Sums of /proc/<pid>/net/dev: (received, sent).
fn network(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((device, counters)) = line.split_once(':') else { continue };
        if device.trim() == "lo" {
            continue;
        }
        let fields: Vec<u64> = counters.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        sums.0 += fields.first().copied().unwrap_or(0);
        sums.1 += fields.get(8).copied().unwrap_or(0);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_counters_without_loopback() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                    eth0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(network(text), (101, 202));
    }

    #[test]
    fn percent_of_one_cpu() {
        let old = Sample { id: "a".into(), time: 0, ..Sample::default() };
        let mut new = Sample { id: "a".into(), time: 1_000_000_000, ..Sample::default() };
        new.usage.cpu_ns = 1_500_000_000;
        let percent = with_percent(new, &[("a".to_owned(), old)].into()).cpu_percent;
        assert!((percent - 150.0).abs() < 0.001);
    }
}
