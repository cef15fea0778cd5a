//! One test's surroundings: directories, programs, daemons, a registry, network namespaces.
use crate::leftovers::Picture;
use crate::run::{Outcome, eventually};
use crate::{Fixture, Result};
use anyhow::{Context, bail, ensure};
use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a test gets; everything in it ends with the test.
pub struct Bed {
    dir: tempfile::TempDir,
    bin: PathBuf,
    before: Picture,
    daemons: RefCell<Vec<Daemon>>,
    registry: RefCell<Option<Daemon>>,
}

/// A server that the bed started.
#[derive(Clone)]
pub struct Daemon {
    name: String,
    pid: u32,
    child: std::rc::Rc<RefCell<Child>>,
}

impl Daemon {
    /// Its process id inside.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by name: "KILL", "TERM", "STOP".
    pub fn signal(&self, name: &str) -> Result {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status()?;
        ensure!(status.success(), "kill -{name} {} ({})", self.pid, self.name);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> Result {
        self.child.borrow_mut().kill()?;
        self.child.borrow_mut().wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it is gone; SIGKILL and an error after ten seconds.
    pub fn stop(&self) -> Result {
        if self.child.borrow_mut().try_wait()?.is_some() {
            return Ok(());
        }
        self.signal("TERM")?;
        let gone = eventually(Duration::from_secs(10), || {
            ensure!(self.child.borrow_mut().try_wait()?.is_some(), "{} ignores SIGTERM", self.name);
            Ok(())
        });
        if gone.is_err() {
            self.kill()?;
        }
        gone
    }
}

impl Bed {
    pub(crate) fn new(test: &str) -> Result<Self> {
        let name = test.rsplit("::").next().unwrap_or("test");
        let dir = tempfile::Builder::new().prefix(&format!("it-{}", &name[..name.len().min(12)])).tempdir()?;
        let exe = std::env::current_exe()?;
        let built = exe.parent().and_then(Path::parent).context("where the programs are")?.to_path_buf();
        let bin = std::env::var_os("PIER_BIN").map_or(built, PathBuf::from);
        let before = Picture::take(dir.path());
        Ok(Self { dir, bin, before, daemons: RefCell::default(), registry: RefCell::default() })
    }

    /// The test's own directory, empty at first.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `--root` of every program.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// `--run` of every program.
    pub fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The built program of that name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Things that are made once for all tests: rootfs, images.
    pub fn fixture(&self) -> Fixture {
        Fixture::new()
    }

    /// A command with the bed's environment: PATH begins with the built programs, PIER_ROOT and PIER_RUN are the bed's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:/usr/sbin:/sbin:{path}", self.bin.display()))
            .env("PIER_ROOT", self.root())
            .env("PIER_RUN", self.run())
            .env("HOME", self.dir())
            .env("DIR", self.dir())
            .env_remove("PIER_IT_INSIDE")
            .current_dir(self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script with the bed's environment ($DIR is the bed's directory) and waits for it.
    pub fn sh(&self, script: &str) -> Result<Outcome> {
        let output = self.command("bash").arg("-c").arg(script).output().context("run bash")?;
        Ok(Outcome::of(script.to_string(), output))
    }

    /// Runs a program with the bed's environment and waits for it.
    pub fn exec<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(&self, program: &str, args: &[S]) -> Result<Outcome> {
        let output = self.command(program).args(args).output().with_context(|| format!("run {program}"))?;
        Ok(Outcome::of(format!("{program} {args:?}"), output))
    }

    /// Starts a command in the background; it is stopped at the end. Its output goes to `<dir>/<name>.log`.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Daemon> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir().join(format!("{name}.log")))?;
        let child = command.stdout(log.try_clone()?).stderr(log).process_group(0).spawn();
        let child = child.with_context(|| format!("start {name}"))?;
        let daemon = Daemon { name: name.into(), pid: child.id(), child: std::rc::Rc::new(RefCell::new(child)) };
        self.daemons.borrow_mut().push(daemon.clone());
        Ok(daemon)
    }

    /// Starts `pier-<tool> serve` and waits until it answers. "engine" is pierd, which starts the others itself.
    pub fn serve(&self, tool: &str) -> Result<Daemon> {
        self.serve_with(tool, &[])
    }

    /// [`Bed::serve`] with more arguments.
    pub fn serve_with(&self, tool: &str, args: &[&str]) -> Result<Daemon> {
        let (program, socket) = match tool {
            "engine" => ("pierd".to_string(), "pier.sock".to_string()),
            other => (format!("pier-{other}"), format!("{other}.sock")),
        };
        let daemon = self.spawn(&program, self.command(self.program(&program)).arg("serve").args(args))?;
        let socket = self.run().join(socket);
        eventually(Duration::from_secs(10), || {
            if let Some(status) = daemon.child.borrow_mut().try_wait()? {
                bail!("{program} ended with {status}:\n{}", self.log(&program));
            }
            std::os::unix::net::UnixStream::connect(&socket).context(format!("connect to {}", socket.display()))?;
            Ok(())
        })?;
        Ok(daemon)
    }

    /// What a background command has printed so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Debian's docker-registry on 127.0.0.1:5000 of the bed's network namespace, started at the first call, with its
    /// storage in `<dir>/registry`. Returns "127.0.0.1:5000".
    pub fn registry(&self) -> Result<&'static str> {
        const ADDRESS: &str = "127.0.0.1:5000";
        if self.registry.borrow().is_some() {
            return Ok(ADDRESS);
        }
        let storage = self.dir().join("registry");
        std::fs::create_dir_all(&storage)?;
        let config = self.dir().join("registry.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: \
                 {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{ADDRESS}\"}}\n",
                storage.display()
            ),
        )?;
        let daemon = self.spawn("registry", self.command("docker-registry").arg("serve").arg(&config))?;
        *self.registry.borrow_mut() = Some(daemon);
        eventually(Duration::from_secs(10), || {
            std::net::TcpStream::connect(ADDRESS).with_context(|| self.log("registry"))?;
            Ok(())
        })?;
        Ok(ADDRESS)
    }

    /// Stops the registry, for tests of its absence.
    pub fn stop_registry(&self) -> Result {
        match self.registry.borrow_mut().take() {
            Some(daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// What a look for leftovers would complain of now; empty when all is clean.
    pub fn leftovers(&self) -> String {
        Picture::take(self.dir()).compare(&self.before).err().map(|e| e.to_string()).unwrap_or_default()
    }

    /// Stops what was started, lets tools that pierd started end too, and looks for leftovers.
    pub(crate) fn finish(self) -> Result {
        let mut problems = Vec::new();
        for daemon in self.daemons.borrow().iter().rev() {
            if let Err(e) = daemon.stop() {
                problems.push(format!("{e:#}"));
            }
        }
        stop_tools(&self.run())?;
        remove_empty_parents();
        let dir = self.dir.path().to_path_buf();
        let left = eventually(Duration::from_secs(3), || Picture::take(&dir).compare(&self.before));
        if left.is_err() || !problems.is_empty() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    eprintln!(
                        "--- {}\n{}",
                        entry.path().display(),
                        std::fs::read_to_string(entry.path()).unwrap_or_default()
                    );
                }
            }
        }
        left?;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }
}

/// runc, crun and podman leave the empty parent of their containers' cgroups; rmdir takes only empty ones.
fn remove_empty_parents() {
    for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for parent in ["pier", "libpod_parent/conmon", "libpod_parent"] {
            let _ = std::fs::remove_dir(entry.path().join(parent));
        }
    }
}

/// The tools that an engine spawned are detached from it on purpose: end them by their sockets' peers.
fn stop_tools(run: &Path) -> Result {
    let run = run.display().to_string();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = command.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let ours = words.first().is_some_and(|w| w.contains("pier")) && words.iter().any(|w| w == "serve");
        if ours && words.contains(&run) {
            Command::new("kill").arg("-TERM").arg(pid).status()?;
        }
    }
    Ok(())
}
