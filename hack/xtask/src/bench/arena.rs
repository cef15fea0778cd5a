//! Where benchmarks run, and how they are timed: interleaved rounds, medians, ratios to the first side.
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Directories, environment and background processes.
pub struct Arena {
    /// Scratch directory.
    pub dir: PathBuf,
    env: Vec<(String, String)>,
    children: RefCell<Vec<Child>>,
}

/// One contestant: a name, and a shell script that is one run. `$N` is the number of the round.
pub struct Side {
    /// Shown in the table.
    pub name: String,
    /// Not timed, before each run.
    pub before: String,
    /// Timed.
    pub script: String,
    /// Not timed, after each run.
    pub after: String,
}

impl Side {
    /// With only a timed part.
    pub fn new(name: &str, script: &str) -> Self {
        Self { name: name.into(), before: String::new(), script: script.into(), after: String::new() }
    }
}

impl Arena {
    /// Looks for programs and fixtures.
    pub fn new() -> Result<Self> {
        // crun refuses the hybrid layout; what the others see is then plain v1.
        let _ = Command::new("umount").arg("/sys/fs/cgroup/unified").stderr(Stdio::null()).status();
        let root = crate::proto::workspace().canonicalize()?;
        // Others than the release's show whether a benchmark works; their figures mean nothing.
        let bin = std::env::var_os("PIER_BIN").map_or_else(|| root.join("target/dist/bin"), PathBuf::from);
        ensure!(bin.join("pier").exists(), "no release programs: run `hack/dev release`");
        let fixtures = root.join("target/bench-fixtures");
        let dir = PathBuf::from(format!("/tmp/pier-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let n = open_files();
        std::fs::write(
            dir.join("containers.conf"),
            format!("[containers]\ndefault_ulimits = [\"nofile={n}:{n}\",\"nproc={n}:{n}\"]\n"),
        )?;
        std::fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let podman = format!(
            "podman --root {0}/podman/root --runroot {0}/podman/run --cgroup-manager cgroupfs --events-backend file --storage-driver overlay",
            dir.display()
        );
        let env = [
            ("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display())),
            ("DIR", dir.display().to_string()),
            ("PIER_ROOT", at("root")),
            ("PIER_RUN", at("run")),
            ("CONTAINERS_CONF", at("containers.conf")),
            ("PODMAN", podman),
            ("REG", "127.0.0.1:5000".into()),
            ("BUSYBOX_TAR", fixtures.join("busybox.tar").display().to_string()),
            ("DEBIAN_TAR", fixtures.join("debian.tar").display().to_string()),
        ];
        let env = env.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let arena = Self { dir, env, children: RefCell::default() };
        arena.machine()?;
        Ok(arena)
    }

    fn machine(&self) -> Result<()> {
        let script = "echo \"kernel $(uname -r), $(nproc) cores, $(awk '/MemTotal/{print int($2/1048576)}' /proc/meminfo) GiB\"; \
            pier --version; for p in runc crun podman skopeo docker; do command -v $p >/dev/null && echo \"$p: $($p --version 2>&1 | head -1)\"; done; true";
        print!("{}", self.sh(script)?);
        Ok(())
    }

    /// Runs a shell script and returns its output; an error with the output when it fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.command(script).output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("{script}\n{text}");
        }
        Ok(text)
    }

    /// Whether a script succeeds.
    pub fn has(&self, script: &str) -> bool {
        self.sh(script).is_ok()
    }

    /// A background process, killed at the end.
    pub fn spawn(&self, name: &str, script: &str) -> Result<()> {
        let log = std::fs::File::create(self.dir.join(format!("{name}.log")))?;
        let mut command = self.command(&format!("exec {script}"));
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| name.to_string())?;
        self.children.borrow_mut().push(child);
        Ok(())
    }

    /// Waits until a script succeeds, 15 seconds at most.
    pub fn wait_for(&self, script: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(15);
        while let Err(e) = self.sh(script) {
            ensure!(Instant::now() < end, "{e:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Debian's registry, once.
    pub fn registry(&self) -> Result<()> {
        if self.has("curl -sf http://$REG/v2/") {
            return Ok(());
        }
        let config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n",
            self.dir.display()
        );
        std::fs::write(self.dir.join("registry.yml"), config)?;
        self.spawn("registry", "docker-registry serve $DIR/registry.yml")?;
        self.wait_for("curl -sf http://$REG/v2/")
    }

    /// pierd, with busybox in its store, once.
    pub fn engine(&self) -> Result<()> {
        self.registry()?;
        if !self.has("pier version") {
            self.spawn("pierd", "pierd serve")?;
            self.wait_for("pier version")?;
            self.sh("pier import --change 'CMD [\"sh\"]' $BUSYBOX_TAR $REG/busybox:1 && pier push $REG/busybox:1")?;
        }
        Ok(())
    }

    /// Times the sides in turn, A B C A B C ..., after one round that is not counted, and prints a table.
    pub fn race(&self, title: &str, rounds: usize, sides: &[Side]) -> Result<()> {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
        for round in 0..=rounds {
            for (side, times) in sides.iter().zip(&mut times) {
                let n = format!("N={round}; ");
                self.sh(&format!("{n}{}", side.before)).with_context(|| format!("{} before", side.name))?;
                let mut command = self.command(&format!("{n}{}", side.script));
                let begun = Instant::now();
                let output = command.output()?;
                let took = begun.elapsed().as_secs_f64() * 1000.0;
                ensure!(output.status.success(), "{}: {}", side.name, String::from_utf8_lossy(&output.stderr));
                self.sh(&format!("{n}{}", side.after)).with_context(|| format!("{} after", side.name))?;
                if round > 0 {
                    times.push(took);
                }
            }
        }
        println!(
            "\n{title} (n={rounds}, ms)\n| side | median | min | max | ratio of medians to ours |\n|---|---|---|---|---|"
        );
        let ours = median(&mut times[0].clone());
        for (side, times) in sides.iter().zip(&mut times) {
            let m = median(times);
            println!("| {} | {m:.1} | {:.1} | {:.1} | {:.2} |", side.name, times[0], times[times.len() - 1], m / ours);
        }
        Ok(())
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.env("HOME", &self.dir).env_remove("PIER_BENCH_INSIDE").current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Ends what was started; the namespaces take the rest.
    pub fn close(self) {
        for child in self.children.borrow_mut().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.sh("for m in $(awk -v d=$DIR '$2 ~ d {print $2}' /proc/mounts | sort -r); do umount -l $m; done");
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Sum of the proportional set sizes of these processes, in KiB.
pub fn pss_kib(pids: &[u32]) -> u64 {
    let one = |pid: &u32| {
        let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup")).ok()?;
        text.lines().find_map(|l| l.strip_prefix("Pss:"))?.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(one).sum()
}

/// Pids whose program has this name.
pub fn pids_of(program: &str) -> Vec<u32> {
    let of_program = |line: &[String]| Path::new(&line[0]).file_name().is_some_and(|name| name == program);
    command_lines().into_iter().filter(|(_, line)| of_program(line)).map(|(pid, _)| pid).collect()
}

/// Each process with its command line, of one word at least.
pub fn command_lines() -> Vec<(u32, Vec<String>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let word = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        found.push((pid, line.split(|b| *b == 0).map(word).collect()));
    }
    found
}

/// Makes what the benchmarks need from the package registry; outside, where there is a network.
pub fn make_fixtures() -> Result<()> {
    let root = crate::proto::workspace().canonicalize()?;
    let fixtures = root.join("target/bench-fixtures");
    std::fs::create_dir_all(&fixtures)?;
    for (name, script) in [("busybox", "busybox.sh"), ("busybox.tar", "busybox-tar.sh"), ("debian.tar", "debian.sh")] {
        if !fixtures.join(name).exists() {
            let script = root.join("integration/fixtures").join(script);
            let made = Command::new("sh").arg(&script).arg(name).current_dir(&fixtures).status()?;
            ensure!(made.success(), "{}", script.display());
        }
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn open_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default().to_string();
    line.split_whitespace().nth(4).and_then(|n| n.parse().ok()).unwrap_or(1024)
}
