//! Acceptance 5: containers come and go while random `pier-runtime` processes are killed; `delete --force` can always clean up.
//!
//! `PIER_CRASH_COUNT=1000` makes it the long campaign.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const WIDTH: usize = 8;

#[test]
fn nothing_is_beyond_delete() -> Result {
    isolated!(|bed| {
        let count = std::env::var("PIER_CRASH_COUNT").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
        prepare(bed)?;
        let found = Campaign::new(bed).run(count)?;
        println!("{count} containers, {WIDTH} at a time: {found:?}");
        ensure!(found.get("killed").is_some_and(|n| *n > 0), "nobody was killed: the test tests nothing");
        let left: Vec<String> = std::fs::read_dir(bed.dir().join("state"))?
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|name| name != ".cache")
            .collect();
        ensure!(left.is_empty(), "state left: {left:?}");
        no_processes()
        // Cgroups and mounts: the bed compares them with what was there before.
    })
}

fn prepare(bed: &Bed) -> Result {
    let dir = bed.dir().join("b");
    bed.fixture().bundle(&dir, &["sleep", "1000"])?;
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["linux"]["seccomp"] =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}]});
    config["linux"]["resources"] = json!({"pids": {"limit": 50}, "memory": {"limit": 64 << 20}});
    std::fs::create_dir(bed.dir().join("state"))?;
    Ok(std::fs::write(path, serde_json::to_vec(&config)?)?)
}

/// No process of a container and no runtime; pid 1 of the test reaps, which may take a moment.
fn no_processes() -> Result {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left: Vec<String> =
            running(&["sleep", "pier-runtime"]).into_iter().map(|(pid, name)| format!("{pid} {name}")).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "processes left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose first argument ends in one of the names; zombies have no arguments.
fn running(names: &[&str]) -> Vec<(i32, String)> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let first = String::from_utf8_lossy(line.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        if Path::new(&first).file_name().is_some_and(|n| names.iter().any(|name| n == *name)) {
            found.push((pid, first));
        }
    }
    found
}

struct Campaign<'a> {
    runtime: std::path::PathBuf,
    dir: &'a Path,
    next: AtomicUsize,
    over: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, usize>>,
    failed: Mutex<Vec<String>>,
}

impl<'a> Campaign<'a> {
    fn new(bed: &'a Bed) -> Self {
        Self {
            runtime: bed.program("pier-runtime"),
            dir: bed.dir(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            counts: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    fn run(&self, count: usize) -> Result<BTreeMap<&'static str, usize>> {
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| self.kill_at_random());
            let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(|| self.work(count))).collect();
            workers.into_iter().for_each(|w| drop(w.join()));
            self.over.store(true, Ordering::Relaxed);
            drop(killer.join());
        });
        // Nobody is killed any more: now everything must go.
        for n in 0..count {
            if let Err(why) = self.call(&["delete", "--force", &format!("c{n}")]) {
                self.fail(format!("delete --force c{n}: {why}"));
            }
        }
        let failed = self.failed.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
        ensure!(failed.is_empty(), "{} failures, the first: {:?}", failed.len(), failed.first());
        self.counts.lock().map(|c| c.clone()).ok().context("a worker panicked")
    }

    fn work(&self, count: usize) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return;
            }
            let id = format!("c{n}");
            for args in [
                &["create", "--bundle", "b", &id][..],
                &["start", &id],
                &["state", &id],
                &["kill", &id, "KILL"],
                &["delete", "--force", &id],
            ] {
                match self.call(args) {
                    Ok(()) => self.count("done"),
                    Err(why) if why == "killed" => self.count("killed"),
                    // Follows from a killed step before it.
                    Err(_) => self.count("refused"),
                }
            }
        }
    }

    fn call(&self, args: &[&str]) -> std::result::Result<(), String> {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.dir.join("state")).args(args).current_dir(self.dir);
        // To a file: a pipe would be kept open by the container.
        let errors = self.dir.join(format!("{}.err", args.last().copied().unwrap_or_default()));
        let file = std::fs::File::create(&errors).map_err(|e| e.to_string())?;
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status().map_err(|e| e.to_string())?;
        match (status.success(), status.code()) {
            (true, _) => Ok(()),
            (false, None) => Err("killed".into()),
            (false, Some(_)) => Err(std::fs::read_to_string(&errors).unwrap_or_default()),
        }
    }

    /// Picks one of the runtime's processes (also one that is half a container) every few milliseconds.
    fn kill_at_random(&self) {
        let mut seed = u64::from(std::process::id()) | 1;
        while !self.over.load(Ordering::Relaxed) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(seed % 20_000));
            let all = running(&["pier-runtime"]);
            if let Some((pid, _)) = all.get(seed as usize % all.len().max(1))
                && let Some(pid) = rustix::process::Pid::from_raw(*pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    fn count(&self, what: &'static str) {
        if let Ok(mut counts) = self.counts.lock() {
            *counts.entry(what).or_default() += 1;
        }
    }

    fn fail(&self, why: String) {
        if let Ok(mut failed) = self.failed.lock() {
            failed.push(why);
        }
    }
}
