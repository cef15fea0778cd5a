//! Snapshots that are whole trees (copies, btrfs): what a crash leaves of one that was not yet, or no longer, anybody's goes;
//! and what is somebody's stays, with a lost database, too.
use crate::distribution_crash::{Checked, Operation, campaign, images, recording_registry};
use crate::distribution_erofs::{AGAIN, SAME};
use anyhow::{Context, ensure};
use integration::crash::{BTRFS, Ground};
use integration::tracer::Point;
use integration::{Result, isolated};

const PULLED: &str = "pier-distribution pull -q 127.0.0.1:5001/app:1; sync -f $PIER_ROOT";

/// Preparing one, by this snapshotter.
fn prepare(snapshotter: &'static str) -> Operation {
    let victim: &[&str] = match snapshotter {
        "btrfs" => {
            &["pier-distribution", "--default-snapshotter", "btrfs", "snapshot", "prepare", "c", "127.0.0.1:5001/app:1"]
        }
        _ => {
            &["pier-distribution", "--default-snapshotter", "copy", "snapshot", "prepare", "c", "127.0.0.1:5001/app:1"]
        }
    };
    Operation { name: snapshotter, before: PULLED, victim, again: AGAIN, then: SAME }
}

/// The points from the tree's arrival at its place on: its row is not committed yet, then it is, then its record has its name.
fn around_the_commit(points: &[Point]) -> Vec<usize> {
    let arrived = points.iter().position(|p| p.call == "fsync" && p.path.ends_with("/snapshots"));
    arrived.map_or(Vec::new(), |index| (index + 1..=points.len().min(index + 14)).collect())
}

/// The row is committed, the record has not got its name.
fn before_the_record(points: &[Point]) -> Vec<usize> {
    points
        .iter()
        .position(|p| p.call == "rename" && p.path.ends_with("/record.new"))
        .map(|index| index + 1)
        .into_iter()
        .collect()
}

#[test]
fn a_copy_is_rubbish_until_its_row_is_there() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let (ground, operation) = (Ground { bed, disk: None }, prepare("copy"));
        let done = ground.chosen_points(PULLED, operation.victim, around_the_commit, || ground.verify(&operation));
        ground.finish()?;
        let (_, killed) = done?;
        ensure!(killed > 4, "{killed} runs were killed");
        Ok(())
    })
}

/// The database goes with the power: a snapshot whose row was there is back, one whose row was not may be.
#[test]
fn a_lost_database_takes_no_snapshot_with_it() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let (ground, operation) = (Ground { bed, disk: None }, prepare("copy"));
        let back = || {
            let there = "ls $PIER_ROOT/distribution/snapshots/*/record.json";
            ground.sh(&format!(
                "set -eo pipefail; rm $PIER_ROOT/distribution/store.db*; pier-distribution snapshot mounts c; {there}; {SAME}
                 pier-distribution check | grep ', 0 damaged'"
            ))?
            .ok()
            .map(drop)
        };
        let done = ground.chosen_points(PULLED, operation.victim, before_the_record, back);
        ground.finish()?;
        ensure!(done?.1 == 1, "not killed");
        Ok(())
    })
}

#[test]
fn the_tree_of_a_chain_on_btrfs_after_a_power_cut() -> Result {
    isolated!(|bed| {
        let operation = prepare("btrfs");
        let again = "export PIER_SNAPSHOTTER=btrfs; pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 >/dev/null || \
                     pier-distribution snapshot mounts c >/dev/null";
        campaign(bed, Some(BTRFS), &[Operation { again, ..operation }])
    })
}

/// btrfs writes names in an order of its own: the directory may be back though the row is gone.
#[test]
fn a_removal_on_btrfs_after_a_power_cut() -> Result {
    isolated!(|bed| {
        let removal = |name, before| Operation {
            name,
            before,
            victim: &["pier-distribution", "snapshot", "rm", "c"],
            again: "pier-distribution snapshot rm c",
            then: "! pier-distribution snapshot mounts c",
        };
        let operations = [
            removal(
                "rm of a tree on btrfs",
                "pier-distribution pull -q 127.0.0.1:5001/app:1; sync -f $PIER_ROOT
                 pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 --snapshotter btrfs >/dev/null; sync -f $PIER_ROOT",
            ),
            removal(
                "rm of an overlay on btrfs",
                "pier-distribution pull -q 127.0.0.1:5001/app:1; sync -f $PIER_ROOT
                 pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 --snapshotter overlay >/dev/null
                 echo mine >$(echo $PIER_ROOT/distribution/snapshots/*/fs)/file; sync -f $PIER_ROOT",
            ),
        ];
        campaign(bed, Some(BTRFS), &operations).context("on btrfs")
    })
}
