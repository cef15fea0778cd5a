//! Where the demo plays: a directory of its own, ports, the registry, the engine, and a look at the host before and after.
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// See the module.
pub struct Stage {
    dir: PathBuf,
    bin: PathBuf,
    env: Vec<(&'static str, String)>,
    before: BTreeSet<String>,
    children: RefCell<Vec<(String, Child)>>,
}

/// What a command printed.
pub struct Printed(String);

impl Printed {
    /// Fails unless the output has `text`.
    pub fn has(self, text: &str) -> Result<()> {
        ensure!(self.0.contains(text), "the output lacks {text:?}");
        Ok(())
    }

    /// Fails when the output has `text`.
    pub fn lacks(self, text: &str) -> Result<()> {
        ensure!(!self.0.contains(text), "the output has {text:?}");
        Ok(())
    }
}

impl Stage {
    /// Makes the fixtures, looks at the host, starts the registry.
    pub fn new(runtime: &str) -> Result<Self> {
        let bin = std::env::current_exe()?.parent().context("where the programs are")?.to_path_buf();
        let fixtures = bin.join("it-fixtures");
        for (name, script) in
            [("busybox", "busybox.sh"), ("busybox.tar", "busybox-tar.sh"), ("debian.tar", "debian.sh")]
        {
            fixture(&fixtures, name, script)?;
        }
        // Short: a socket's path has 107 bytes (unix(7)).
        let dir = PathBuf::from(format!("/tmp/pier-demo-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let [registry, web, echo] = free_ports()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let env = vec![
            ("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display())),
            ("PIER_ROOT", dir.join("root").display().to_string()),
            ("PIER_RUN", dir.join("run").display().to_string()),
            ("REG", format!("127.0.0.1:{registry}")),
            ("RUNTIME", runtime.to_string()),
            ("WEB", web.to_string()),
            ("ECHO", echo.to_string()),
            ("BUSYBOX_TAR", fixtures.join("busybox.tar").display().to_string()),
            ("DEBIAN_TAR", fixtures.join("debian.tar").display().to_string()),
        ];
        let stage = Self { dir, bin, env, before: picture(), children: RefCell::default() };
        stage.start_registry(registry)?;
        Ok(stage)
    }

    /// A heading.
    pub fn act(&self, title: &str) {
        println!("\n== {title}");
    }

    /// A value of the demo's environment.
    pub fn var(&self, name: &str) -> &str {
        self.env.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }

    /// Prints a command, runs it, prints its output, and fails unless it succeeded.
    pub fn sh(&self, script: &str) -> Result<Printed> {
        println!("$ {script}");
        let (ok, text) = self.quiet(script)?;
        print!("{text}");
        ensure!(ok, "failed: {script}");
        Ok(Printed(text))
    }

    /// Runs a command without showing it.
    pub fn quiet(&self, script: &str) -> Result<(bool, String)> {
        let output = self.command("bash").arg("-c").arg(format!("exec 2>&1; {script}")).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Runs a command until its output has `text`, for five seconds at most.
    pub fn eventually(&self, script: &str, text: &str) -> Result<()> {
        println!("$ {script}");
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let (_, out) = self.quiet(script)?;
            if out.contains(text) {
                print!("{out}");
                return Ok(());
            }
            ensure!(Instant::now() < end, "the output lacks {text:?}: {out}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a file of the demo.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().context("parent")?)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Starts pierd, which starts the tools, and waits until it answers.
    pub fn start_engine(&self) -> Result<()> {
        println!("$ pierd serve &");
        self.spawn("pierd", self.command(self.bin.join("pierd")).arg("serve"))?;
        let end = Instant::now() + Duration::from_secs(10);
        while !self.quiet("pier version")?.0 {
            ensure!(Instant::now() < end, "pierd does not answer: {}", self.quiet("pier version")?.1);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Pids of the demo's own `serve` processes by program name.
    pub fn servers(&self) -> Vec<(String, u32)> {
        let run = self.var("PIER_RUN").to_string();
        let root = self.var("PIER_ROOT").to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let words = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&str> = words.split('\0').collect();
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            let ours = words.iter().any(|w| *w == run || *w == root) || environ.contains(&format!("PIER_RUN={run}\0"));
            let name =
                Path::new(words.first().unwrap_or(&"")).file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ours && words.contains(&"serve") && name.starts_with("pier") {
                found.push((name, pid));
            }
        }
        found.sort();
        found
    }

    /// SIGTERM for the engine and the tools, and waits for their end.
    pub fn stop_everything(&self) -> Result<()> {
        println!("$ kill {}", self.servers().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(" "));
        // The engine first: it would start the tools again.
        let (engine, tools): (Vec<_>, Vec<_>) = self.servers().into_iter().partition(|(name, _)| name == "pierd");
        for (_, pid) in engine.into_iter().chain(tools) {
            Command::new("kill").arg(pid.to_string()).status()?;
            self.wait_gone(pid)?;
        }
        for (_, child) in self.children.borrow_mut().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(())
    }

    fn wait_gone(&self, pid: u32) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(15);
        while alive(pid) {
            self.reap();
            ensure!(Instant::now() < end, "process {pid} ignores SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Collects children that have ended.
    pub fn reap(&self) {
        self.children.borrow_mut().retain_mut(|(_, child)| !matches!(child.try_wait(), Ok(Some(_))));
    }

    /// Compares the host with what it was before.
    pub fn nothing_left(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let now = picture();
            let new: Vec<&String> = now.difference(&self.before).filter(|l| self.concerns(l)).collect();
            if new.is_empty() {
                println!("mounts, links, nft tables, cgroups, network namespaces, processes: as before");
                return Ok(());
            }
            if Instant::now() > end {
                bail!("left on the host: {new:#?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Processes are other people's too: only those with the demo's directory in their command line count.
    fn concerns(&self, line: &str) -> bool {
        !line.starts_with("process") || line.contains(&self.dir.display().to_string())
    }

    /// Ends what still runs and removes the directory.
    pub fn close(self) -> Result<()> {
        for (_, pid) in self.servers() {
            let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
        }
        for (_, child) in self.children.borrow_mut().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // After a failure only: a demo that passed has left no mount.
        let unmount = format!(
            "awk '$2 ~ \"^{}\" {{print $2}}' /proc/mounts | sort -r | xargs -r -n1 umount -l",
            self.dir.display()
        );
        let _ = self.quiet(&unmount);
        let keep = std::env::var_os("PIER_DEMO_KEEP").is_some();
        if !keep {
            std::fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        }
        Ok(())
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.env.iter().map(|(k, v)| (k, v))).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    fn spawn(&self, name: &str, command: &mut Command) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| format!("start {name}"))?;
        self.children.borrow_mut().push((name.into(), child));
        Ok(())
    }

    fn start_registry(&self, port: u16) -> Result<()> {
        let storage = self.dir.join("registry");
        std::fs::create_dir_all(&storage)?;
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            storage.display()
        );
        let config = self.dir.join("registry.yml");
        std::fs::write(&config, text)?;
        println!("$ docker-registry serve registry.yml &");
        self.spawn("registry", self.command("docker-registry").arg("serve").arg(&config))?;
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < end, "the registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// True while a process runs; a zombie does not.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn fixture(dir: &Path, name: &str, script: &str) -> Result<()> {
    if dir.join(name).exists() {
        return Ok(());
    }
    println!("$ integration/fixtures/{script}");
    std::fs::create_dir_all(dir)?;
    let stage = dir.join(format!("{name}.stage"));
    let script = crate::proto::workspace().join("integration/fixtures").join(script).canonicalize()?;
    let status = Command::new("sh").arg(&script).arg(&stage).current_dir(dir).status()?;
    ensure!(status.success(), "{} failed", script.display());
    Ok(std::fs::rename(stage, dir.join(name))?)
}

fn free_ports() -> Result<[u16; 3]> {
    let sockets =
        [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut ports = [0; 3];
    for (port, socket) in ports.iter_mut().zip(&sockets) {
        *port = socket.local_addr()?.port();
    }
    Ok(ports)
}

fn picture() -> BTreeSet<String> {
    let script = "awk '{print \"mount \" $5}' /proc/self/mountinfo
        ip -o link show | awk -F': ' '{print \"link \" $2}'
        nft list tables 2>/dev/null | sed 's/^/nft /'
        awk '/ - cgroup/ {print $5}' /proc/self/mountinfo | xargs -I{} find {} -mindepth 1 -type d 2>/dev/null | sed 's/^/cgroup /'
        ls /run/netns 2>/dev/null | sed 's/^/netns /'
        ps -eo stat=,args= | grep -v '^Z' | sed 's/^/process /'";
    let output = Command::new("bash").arg("-c").arg(script).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().map(String::from).collect()
}
