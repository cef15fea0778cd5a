//! Starting the test binary again for one test, inside.
use crate::{Bed, Result};
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set inside, to the test's name.
const INSIDE: &str = "PIER_IT_INSIDE";

/// A test that takes longer than this hangs, in seconds; the variable is for a test that is asked to do more than usual.
const LIMIT: u64 = 240;
const LIMIT_VARIABLE: &str = "PIER_IT_LIMIT";

/// See [`crate::isolated!`]; `here` is the type name of a function inside the test function.
pub fn isolate(here: &str, body: impl FnOnce(&Bed) -> Result) -> Result {
    let test = test_name(here);
    if std::env::var(INSIDE).as_deref() == Ok(test) {
        return inside(test, body);
    }
    if !is_root() {
        println!("skipped {test}: needs root");
        return Ok(());
    }
    outside(test)
}

/// "it::network::talk::here" is the test "network::talk".
fn test_name(here: &str) -> &str {
    let path = here.split_once("::").map_or(here, |(_, rest)| rest);
    path.rsplit_once("::").map_or(path, |(test, _)| test)
}

fn inside(test: &str, body: impl FnOnce(&Bed) -> Result) -> Result {
    let bed = Bed::new(test)?;
    let result = body(&bed);
    let clean = bed.finish();
    result?;
    clean.context("the test passed, but left something behind")
}

fn outside(test: &str) -> Result {
    let cgroup = format!("pier-it-{}-{:08x}", std::process::id(), hash(test));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("isolate.sh");
    let mut child = Command::new(script)
        .arg(&cgroup)
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1", "--quiet"])
        .env(INSIDE, test)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start isolate.sh")?;
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait(&mut child, &cgroup)?;
    remove_cgroups(&cgroup);
    let text = format!("{}{}", out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match status {
        Some(status) if status.success() && !text.contains("0 passed") => {
            println!("{text}");
            Ok(())
        }
        Some(_) => {
            show(test, &text);
            bail!("failed inside; its output is above")
        }
        None => {
            show(test, &text);
            bail!("killed after {} s", limit().as_secs())
        }
    }
}

/// Past the capture of libtest, which prints nothing before the last test has ended: a run that is cut off, or whose
/// log is cut, says why all the same.
fn show(test: &str, text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("--- {test}\n{text}\n").as_bytes());
}

fn limit() -> Duration {
    Duration::from_secs(std::env::var(LIMIT_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(LIMIT))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn wait(child: &mut std::process::Child, cgroup: &str) -> Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + limit();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            // unshare --kill-child takes the whole pid namespace with it; what is frozen would not die.
            child.kill()?;
            let _ = std::fs::write(format!("/sys/fs/cgroup/freezer/{cgroup}/freezer.state"), "THAWED");
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The branch of every hierarchy that isolate.sh made; empty by now, since its processes are dead.
fn remove_cgroups(name: &str) {
    for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove_tree(&entry.path().join(name));
    }
    remove_tree(&PathBuf::from("/sys/fs/cgroup").join(name));
}

fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let end = Instant::now() + Duration::from_secs(2);
    while dir.exists() && std::fs::remove_dir(dir).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn hash(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
