//! What a test must not leave: a picture of the namespaces, taken before and after.
use crate::Result;
use anyhow::ensure;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One line per thing that could be left.
pub struct Picture(BTreeSet<String>);

impl Picture {
    /// Looks at mounts, links, routes, nft rules, cgroups, processes, network namespaces and staging files.
    pub fn take(root: &Path) -> Self {
        let mut all = BTreeSet::new();
        all.extend(mounts());
        all.insert(null_device());
        all.extend(lines("link", "ip", &["-o", "link", "show"], |l| l.split(':').nth(1).map(|n| n.trim().to_string())));
        all.extend(lines("route", "ip", &["-o", "route", "show"], |l| Some(l.to_string())));
        all.extend(lines("nft", "nft", &["list", "tables"], |l| Some(l.to_string())));
        all.extend(hierarchies().iter().flat_map(|mount| cgroups(mount)));
        all.extend(processes());
        all.extend(staging(root));
        Self(all)
    }

    /// Fails with the list of what is here and was not in `before`.
    pub fn compare(&self, before: &Picture) -> Result {
        let new: Vec<&String> = self.0.difference(&before.0).collect();
        ensure!(new.is_empty(), "left behind:\n{}", new.iter().map(|s| format!("  {s}\n")).collect::<String>());
        Ok(())
    }
}

/// The one thing of the host that every container touches.
fn null_device() -> String {
    use std::os::unix::fs::MetadataExt;
    let of = |m: std::fs::Metadata| format!("/dev/null of {}:{} with mode {:o}", m.uid(), m.gid(), m.mode());
    std::fs::metadata("/dev/null").map_or_else(|e| format!("/dev/null: {e}"), of)
}

fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|l| Some(format!("mount {}", l.split(' ').nth(4)?))).collect()
}

fn lines(kind: &str, program: &str, args: &[&str], pick: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let Ok(out) = Command::new(program).args(args).output() else { return Vec::new() };
    String::from_utf8_lossy(&out.stdout).lines().filter_map(|l| Some(format!("{kind} {}", pick(l)?))).collect()
}

/// Where cgroup file systems are mounted. (crun makes plain directories where it expects one that a test has unmounted.)
fn hierarchies() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of = |line: &str| (line.contains(" - cgroup")).then(|| line.split(' ').nth(4).map(PathBuf::from)).flatten();
    text.lines().filter_map(of).collect()
}

fn cgroups(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            out.push(format!("cgroup {}", entry.path().display()));
            out.extend(cgroups(&entry.path()));
        }
    }
    out
}

/// Processes of this pid namespace other than init and the test itself; zombies are the init's business.
fn processes() -> Vec<String> {
    let own = std::process::id().to_string();
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == "1" || pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !matches!(state, None | Some('Z' | 'X')) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            out.push(format!("process {pid} {}", command.trim()));
        }
    }
    out
}

/// Half-made files of `statedir` and of the stores.
fn staging(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tmp") || name.ends_with(".trash") {
            out.push(format!("file {}", entry.path().display()));
        } else if entry.file_type().is_ok_and(|t| t.is_dir()) && name != "fs" {
            out.extend(staging(&entry.path()));
        }
    }
    out
}
