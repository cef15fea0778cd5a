//! Things made once from Debian's packages and shared, read-only, by all tests.
use crate::Result;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of fixtures beside the test binary, filled on demand under a lock.
pub struct Fixture {
    dir: PathBuf,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let exe = std::env::current_exe().unwrap_or_default();
        let dir = exe.parent().and_then(Path::parent).unwrap_or(Path::new("/tmp")).join("it-fixtures");
        Self { dir }
    }

    /// A root filesystem of Debian's static busybox with a link for each applet, /etc/passwd and /etc/group. Copy it
    /// before writing to it.
    pub fn busybox(&self) -> Result<PathBuf> {
        self.make("busybox", "busybox.sh")
    }

    /// [`Fixture::busybox`] as a tar.
    pub fn busybox_tar(&self) -> Result<PathBuf> {
        self.busybox()?;
        self.make("busybox.tar", "busybox-tar.sh")
    }

    /// A bundle at `to` that runs `args` in a copy of busybox: config.json of `pier-runtime spec` is not used, so that
    /// other runtimes' tests do not depend on it.
    pub fn bundle(&self, to: &Path, args: &[&str]) -> Result {
        std::fs::create_dir_all(to)?;
        let rootfs = self.busybox()?;
        let status = Command::new("cp").arg("-a").arg(rootfs).arg(to.join("rootfs")).status()?;
        ensure!(status.success(), "copy the rootfs");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let spec = oci::runtime::default_spec(&args)?;
        std::fs::write(to.join("config.json"), serde_json::to_vec_pretty(&spec)?)?;
        Ok(())
    }

    fn make(&self, name: &str, script: &str) -> Result<PathBuf> {
        let made = self.dir.join(name);
        std::fs::create_dir_all(&self.dir)?;
        let lock = std::fs::File::create(self.dir.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        if !made.exists() {
            let stage = self.dir.join(format!("{name}.stage"));
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(script);
            let status = Command::new("sh").arg(&script).arg(&stage).current_dir(&self.dir).status();
            let status = status.with_context(|| script.display().to_string())?;
            ensure!(status.success(), "{} failed", script.display());
            std::fs::rename(&stage, &made)?;
        }
        Ok(made)
    }
}
