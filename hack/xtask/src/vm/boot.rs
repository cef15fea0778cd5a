//! One run of one machine: its serial line is shown, and its last word is the result.
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1200);
/// What the guest says at the end, followed by the exit code of the tests.
const RESULT: &str = "PIER-GUEST-EXIT ";

/// Boots and waits for the end. A kernel that dies in qemu's emulation before the tests began gets a second chance.
pub fn run(name: &str, only: &str, kernel: &Path, initrd: &Path, disks: &[PathBuf]) -> Result<()> {
    for attempt in 1..=2 {
        let begin = Instant::now();
        match once(name, only, kernel, initrd, disks)? {
            Some(0) => {
                println!("vm {name}: ok in {:.0} s", begin.elapsed().as_secs_f32());
                return Ok(());
            }
            Some(code) => bail!("vm {name}: the tests ended with {code}"),
            None => eprintln!("vm {name}: attempt {attempt} ended without a result"),
        }
    }
    bail!("vm {name}: no result")
}

fn once(name: &str, only: &str, kernel: &Path, initrd: &Path, disks: &[PathBuf]) -> Result<Option<i32>> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Without cmpxchg16b: qemu 7.2 loses the flags register when an interrupt meets it.
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "max,-cx16",
            "-smp",
            "1",
            "-m",
            "768",
            "-nodefaults",
            "-nographic",
        ])
        .args(["-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd);
    for disk in disks {
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
    }
    // A parameter that the kernel does not know becomes a variable of the first program.
    let only = if only.is_empty() { String::new() } else { format!("PIER_ONLY={only}") };
    command.arg("-append").arg(format!(
        "console=ttyS0 quiet loglevel=1 panic=-1 reboot=t cryptomgr.notests cgroup_no_v1=all pier={name} {only} systemd.unified_cgroup_hierarchy=1 \
         systemd.show_status=0 systemd.log_color=0 systemd.mask=systemd-firstboot.service mitigations=off"
    ));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu-system-x86_64")?;
    let watched = watch(&mut child);
    let _ = child.kill();
    child.wait()?;
    watched
}

/// Copies the serial line until the result, or the end, or the limit.
fn watch(child: &mut Child) -> Result<Option<i32>> {
    let out = child.stdout.take().context("qemu's output")?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let line = line.trim_end();
        if let Some((_, code)) = line.split_once(RESULT) {
            return Ok(code.trim().parse().ok());
        }
        // The firmware clears the screen with escape sequences.
        if !line.contains('\u{1b}') || line.contains("Error") {
            println!("  | {line}");
        }
    }
    Ok(None)
}
