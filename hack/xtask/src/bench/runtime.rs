//! pier-runtime against crun and runc: every verb and a container's whole life, on a minimal configuration and on docker's
//! default one without and with a user namespace. Wall, CPU, peak memory, and what is charged to the container.
//!
//! `PIER_BENCH_RUNTIMES=PATH:PATH` names more runtimes.
use super::arena::Arena;
use super::timed::{Sample, row, timed};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROUNDS: usize = 40;
const VERBS: [&str; 5] = ["create", "start", "exec", "state", "delete"];
/// A profile in docker's format; Debian's podman brings it.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

struct Contestant {
    name: String,
    program: PathBuf,
    root: PathBuf,
}

/// All three configurations.
pub fn run(arena: &Arena) -> Result<()> {
    let all = contestants(arena)?;
    make_bundles(arena)?;
    for (kind, title) in [
        ("min", "minimal configuration"),
        ("docker", "docker's default"),
        ("userns", "docker's default, user namespace"),
    ] {
        if !arena.dir.join(kind).exists() {
            println!("{title}: left out, there is no {PROFILE}");
            continue;
        }
        whole(arena, kind, title, &all)?;
        verbs(arena, kind, title, &all)?;
        memory(arena, kind, title, &all)?;
    }
    Ok(())
}

fn contestants(arena: &Arena) -> Result<Vec<Contestant>> {
    let mut programs: Vec<PathBuf> = ["pier-runtime", "crun", "runc"].iter().filter_map(|p| found(arena, p)).collect();
    let more = std::env::var("PIER_BENCH_RUNTIMES").unwrap_or_default();
    programs.extend(more.split(':').filter(|p| !p.is_empty()).map(PathBuf::from));
    programs
        .into_iter()
        .enumerate()
        .map(|(n, program)| {
            let version = Command::new(&program).arg("--version").output().context("--version")?;
            let text = String::from_utf8_lossy(&version.stdout).into_owned();
            let words: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
            let name = format!("{} {}", words.first().unwrap_or(&"?"), words.last().unwrap_or(&"?"));
            Ok(Contestant { name, program, root: PathBuf::from(format!("/run/bench-{n}")) })
        })
        .collect()
}

fn found(arena: &Arena, program: &str) -> Option<PathBuf> {
    arena.sh(&format!("command -v {program}")).ok().map(|p| p.trim().into())
}

/// Reads and writes a null device of the arena: crun 1.8.1 gives the machine's own to the root of the user namespace.
fn quiet<'a>(arena: &Arena, command: &'a mut Command) -> Result<&'a mut Command> {
    let null =
        std::fs::OpenOptions::new().read(true).write(true).open(arena.dir.join("null")).context("null device")?;
    Ok(command.stdin(null.try_clone()?).stdout(null.try_clone()?).stderr(null))
}

fn make_bundles(arena: &Arena) -> Result<()> {
    let jq = arena.dir.join("docker.jq");
    std::fs::write(&jq, include_str!("docker.jq"))?;
    arena.sh("mknod -m 666 null c 1 3; bundle() { mkdir -p $1 && cp -a $(dirname $BUSYBOX_TAR)/busybox $1/rootfs && mkdir -p $1/rootfs/etc \
            && touch $1/rootfs/etc/hosts $1/rootfs/etc/hostname $1/rootfs/etc/resolv.conf && cat >$1/config.json; }; \
        sleeping() { bundle s-$1 < <(jq '.process.args=[\"/bin/sleep\",\"1000\"]' $1/config.json); }; \
        (mkdir -p spec && cd spec && rm -f config.json && runc spec); \
        bundle min < <(jq '.process.terminal=false | .process.args=[\"/bin/true\"]' spec/config.json); sleeping min")?;
    if !Path::new(PROFILE).exists() {
        return Ok(());
    }
    let map = r#".linux.namespaces+=[{type:"user"}] | .linux.uidMappings=[{containerID:0,hostID:100000,size:65536}] | .linux.gidMappings=.linux.uidMappings"#;
    arena.sh(&format!(
        "bundle() {{ mkdir -p $1 && cp -a min/rootfs $1/ && cat >$1/config.json; }}; \
        sleeping() {{ bundle s-$1 < <(jq '.process.args=[\"/bin/sleep\",\"1000\"]' $1/config.json); }}; \
        bundle docker < <(jq -f docker.jq {PROFILE}); sleeping docker; \
        bundle userns < <(jq '{map}' docker/config.json); sleeping userns; \
        chmod 755 . && chown -R 100000:100000 userns/rootfs s-userns/rootfs"
    ))?;
    Ok(())
}

impl Contestant {
    fn command(&self, arena: &Arena, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args).current_dir(&arena.dir);
        command
    }

    fn once(&self, arena: &Arena, args: &[&str]) -> Result<Sample> {
        timed(quiet(arena, &mut self.command(arena, args))?).with_context(|| format!("{} {args:?}", self.name))
    }

    /// The arguments of a verb for the container `id` of the bundle `s-<kind>`.
    fn verb(&self, arena: &Arena, verb: &str, kind: &str, id: &str) -> Result<Sample> {
        let bundle = format!("s-{kind}");
        match verb {
            "create" => self.once(arena, &["create", "--bundle", &bundle, id]),
            "exec" => self.once(arena, &["exec", id, "/bin/true"]),
            "delete" => self.once(arena, &["delete", "--force", id]),
            other => self.once(arena, &[other, id]),
        }
    }
}

/// Who comes when: everybody has every predecessor's aftermath (namespaces and cgroups that the kernel takes down later) as often.
fn turns(round: usize, all: usize) -> impl Iterator<Item = usize> {
    let coprime = |step: &usize| (2..=*step).all(|d| !(step.is_multiple_of(d) && all.is_multiple_of(d)));
    let steps: Vec<usize> = (1..all.max(2)).filter(coprime).collect();
    let step = steps[round / all % steps.len()];
    (0..all).map(move |n| (round + n * step) % all)
}

fn whole(arena: &Arena, kind: &str, title: &str, all: &[Contestant]) -> Result<()> {
    let mut samples: Vec<Vec<Sample>> = vec![vec![]; all.len()];
    for round in 0..ROUNDS + 2 {
        for n in turns(round, all.len()) {
            samples[n].push(all[n].once(arena, &["run", "--bundle", kind, &format!("w{round}")])?);
        }
    }
    table(&format!("whole life (run of /bin/true), {title}"), all, &samples);
    Ok(())
}

fn verbs(arena: &Arena, kind: &str, title: &str, all: &[Contestant]) -> Result<()> {
    let mut samples: Vec<Vec<Vec<Sample>>> = vec![vec![vec![]; all.len()]; VERBS.len()];
    for round in 0..ROUNDS / 2 + 2 {
        for n in turns(round, all.len()) {
            let one = &all[n];
            for (verb, samples) in VERBS.iter().zip(&mut samples) {
                samples[n].push(one.verb(arena, verb, kind, &format!("v{round}"))?);
            }
        }
    }
    for (verb, samples) in VERBS.iter().zip(&samples) {
        table(&format!("{verb}, {title}"), all, samples);
    }
    Ok(())
}

/// Without the two first rounds, which warm up.
fn table(title: &str, all: &[Contestant], samples: &[Vec<Sample>]) {
    println!(
        "\n{title} (n={}, ms)\n| runtime | wall median | min | cpu median | ratio of wall to ours |\n|---|---|---|---|---|",
        samples[0].len() - 2
    );
    let mut ours = 0.0;
    for (one, samples) in all.iter().zip(samples) {
        let (text, median) = row(&samples[2..]);
        if ours == 0.0 {
            ours = median;
        }
        println!("| {} | {text} | {:.2} |", one.name, median / ours);
    }
}

/// Peak memory of `run` from a parent smaller than itself (a child's peak counts what it was forked from), and the peak of the
/// container's memory cgroup when it waits for `start`.
fn memory(arena: &Arena, kind: &str, title: &str, all: &[Contestant]) -> Result<()> {
    println!(
        "\nmemory, {title} (KiB)\n| runtime | peak of `run` | charged to the container after `create` |\n|---|---|---|"
    );
    for one in all {
        let runtime = format!("{} --root {}", one.program.display(), one.root.display());
        let peak = format!(
            "for i in 1 2 3 4 5; do command time -f %M -a -o peak {runtime} run --bundle {kind} m$i >/dev/null 2>&1; done; sort -n peak | sed -n 3p; rm peak"
        );
        let peak = arena.sh(&peak).unwrap_or_else(|_| "?".into());
        let cgroup = "/bench-memory";
        let charged = format!(
            "jq '.linux.cgroupsPath=\"{cgroup}\"' s-{kind}/config.json >c && mv c s-{kind}/config.json; \
            {runtime} create --bundle s-{kind} m >/dev/null 2>&1; \
            for f in /sys/fs/cgroup/memory{cgroup}/memory.max_usage_in_bytes /sys/fs/cgroup{cgroup}/memory.peak; do [ -e $f ] && cat $f; done; \
            {runtime} delete --force m"
        );
        let charged = arena.sh(&charged)?;
        let bytes: u64 = charged.lines().next().and_then(|l| l.parse().ok()).unwrap_or_default();
        ensure!(bytes > 0, "{}: {charged}", one.name);
        println!("| {} | {} | {} |", one.name, peak.trim(), bytes / 1024);
    }
    Ok(())
}
