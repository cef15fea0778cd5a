//! One command in throw-away mount, pid, network and cgroup namespaces, ended with all that it left running.
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A running command; dropped, it and everything it started is gone, its cgroups and its files too.
pub struct Isolated {
    child: Child,
    name: String,
    dir: PathBuf,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Isolated {
    /// Starts `sh -c script` with an empty /tmp and a terminal of its own; what it prints goes to [`Self::output`].
    pub fn start(script: &str, environment: &[(&str, &Path)]) -> Result<Self> {
        let name = format!("conform-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Neither /tmp nor /run, which are empty ones inside.
        let dir = Path::new("/var/tmp").join(&name);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("out"), "")?;
        // script(1) makes the terminal, as a CI's `docker run -t` would.
        let inner = "mount -t tmpfs -o mode=1777 tmpfs /tmp; exec script -qec \"$1\" /dev/null";
        let line = format!("({script}) >{}/out 2>&1", dir.display());
        let child = Command::new("integration/isolate.sh")
            .arg(&name)
            .args(["sh", "-c", inner, "sh", &line])
            .envs(environment.iter().copied())
            .env_remove("XDG_RUNTIME_DIR")
            // Never at its end: script(1) would type that into the terminal of whatever runs just then.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("err"))?)
            .spawn()
            .context("integration/isolate.sh")?;
        Ok(Self { child, name, dir })
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("out")).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        // isolate.sh ends in `unshare --kill-child`: the pid namespace dies with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_cgroups(&root.join(&self.name));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn remove_cgroups(dir: &Path) {
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroups(&child.path());
        }
    }
    // The killed are gone a moment after their parent.
    for _ in 0..100 {
        match std::fs::remove_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}
