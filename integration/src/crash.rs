//! A ground to crash programs on: a directory `store` that is the same before each run, and what a restart finds there.
//!
//! `PIER_CRASH_POINTS=all` asks for a kill at every point; else a few of each operation are drawn.
use crate::tracer::{self, Point, Traced};
use crate::{Bed, Outcome, Result};
use anyhow::{Context, ensure};
use std::path::Path;

/// A file system for the store of each run.
#[derive(Clone, Copy)]
pub struct Disk {
    /// mkfs and its options.
    pub mkfs: &'static str,
    /// `mount -o`.
    pub options: &'static str,
}

/// ext4 that may write names before data, and does nothing for programs that forget a sync.
pub const EXT4: Disk = Disk {
    mkfs: "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0",
    options: "loop,data=writeback,noauto_da_alloc",
};

/// XFS as it is made by default.
pub const XFS: Disk = Disk { mkfs: "mkfs.xfs -q -f", options: "loop" };

/// btrfs as it is made by default.
pub const BTRFS: Disk = Disk { mkfs: "mkfs.btrfs -q -f", options: "loop" };

/// What names this boot of the machine, and how another one gets a name of its own.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT: &str = "cat /proc/sys/kernel/random/uuid >disks/boot";

/// A directory with a store for each run: on the bed's own file system, where a restart finds all that was written; or on
/// one in a file, where it finds what that file had at the moment of the kill: the rest was in the page cache only.
pub struct Ground<'a> {
    /// Where it is.
    pub bed: &'a Bed,
    /// The file system.
    pub disk: Option<Disk>,
}

impl Ground<'_> {
    /// A path of the bed.
    pub fn at(&self, name: &str) -> String {
        self.bed.dir().join(name).display().to_string()
    }

    /// A script with PIER_ROOT in the store.
    pub fn sh(&self, script: &str) -> Result<Outcome> {
        self.bed.sh(&format!("export PIER_ROOT=$DIR/store/root; {script}"))
    }

    /// Makes the state before an operation by a script, to be copied for each run.
    pub fn prepare(&self, before: &str) -> Result {
        let script = match self.disk {
            None => format!("rm -rf store before && mkdir store && ({before}) && mv store before"),
            // On memory, so that only the store's own file system decides what is written when.
            Some(Disk { mkfs, options }) => format!(
                "mkdir -p store disks && mount -t tmpfs none disks && {BOOT} && mount --bind disks/boot {BOOT_ID} && truncate -s 320M disks/before && {mkfs} disks/before && \
                 mount -o {options} disks/before store && ({before}) && umount store"
            ),
        };
        self.sh(&script)?.ok().map(drop)
    }

    /// The store as [`Ground::prepare`] left it.
    pub fn fresh(&self) -> Result {
        let script = match self.disk {
            None => "rm -rf store && cp -a before store".to_owned(),
            Some(Disk { options, .. }) => format!(
                "umount -q store; {BOOT}; cp --sparse=always disks/before disks/disk && mount -o {options} disks/disk store"
            ),
        };
        self.bed.sh(&script)?.ok().map(drop)
    }

    /// What a restart finds.
    pub fn restart(&self) -> Result {
        let Some(Disk { options, .. }) = self.disk else { return Ok(()) };
        // The file as it is now: what the file system has not written there is lost.
        let cut = "cp --sparse=always disks/disk disks/cut && umount store && mv disks/cut disks/disk";
        self.bed.sh(&format!("{cut} && {BOOT} && mount -o {options} disks/disk store"))?.ok().map(drop)
    }

    /// Takes everything away.
    pub fn finish(&self) -> Result {
        let script = match self.disk {
            None => "rm -rf store before".to_owned(),
            Some(_) => format!("umount -q store; umount {BOOT_ID}; umount disks"),
        };
        self.bed.sh(&script)?.ok().map(drop)
    }

    /// Runs a program on the store, killed at a point.
    pub fn run(&self, victim: &[&str], kill_at: Option<usize>) -> Result<Traced> {
        let mut sh = self.bed.command("sh");
        sh.env("PIER_ROOT", self.at("store/root"));
        tracer::run(sh, victim, Path::new(&self.at("victim.log")), kill_at)
    }

    /// Runs `victim` to its end, then kills it at `count` points of its run, each time in a fresh copy of what `before` made, and
    /// has `verify` look at what a restart finds. Gives the number of points, and of runs that were killed.
    pub fn each_point(
        &self,
        before: &str,
        victim: &[&str],
        count: usize,
        verify: impl Fn() -> Result,
    ) -> Result<(usize, usize)> {
        self.chosen_points(before, victim, |points| drawn(points.len(), count), verify)
    }

    /// [`Ground::each_point`] at the points, counted from 1, that `choose` takes of all.
    pub fn chosen_points(
        &self,
        before: &str,
        victim: &[&str],
        choose: impl Fn(&[Point]) -> Vec<usize>,
        verify: impl Fn() -> Result,
    ) -> Result<(usize, usize)> {
        self.prepare(before)?;
        self.fresh()?;
        let clean = self.run(victim, None)?;
        ensure!(clean.code == Some(0), "by itself: {:?}\n{}", clean.code, self.victim_log());
        // It has said that it is done: a power cut now takes nothing of it.
        self.restart()?;
        verify().context("killed after its end")?;
        let mut killed = 0;
        for n in choose(&clean.points) {
            self.fresh()?;
            let traced = self.run(victim, Some(n))?;
            let at = traced.points.last().map_or_else(String::new, |p| format!("{} {}", p.call, p.path));
            self.restart()?;
            verify().with_context(|| format!("killed at point {n}: {at}"))?;
            killed += usize::from(traced.code.is_none());
        }
        Ok((clean.points.len(), killed))
    }

    /// What the last victim said.
    pub fn victim_log(&self) -> String {
        std::fs::read_to_string(self.at("victim.log")).unwrap_or_default()
    }
}

/// Which points of `total` to kill at: all, or `count` of them, others each day.
fn drawn(total: usize, count: usize) -> Vec<usize> {
    if std::env::var("PIER_CRASH_POINTS").as_deref() == Ok("all") {
        return (1..=total).collect();
    }
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let step = (total / count).max(1);
    let first = usize::try_from(seconds).unwrap_or(0) % step;
    (0..count).map(|n| (1 + first + n * step).min(total)).collect()
}
