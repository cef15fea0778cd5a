//! How much space is used, in blocks of the disk: holes count nothing, files with several names once, and what several
//! images are made of once in the sums and as "shared" at each of them.
use super::Store;
use crate::layer::rows;
use crate::snapshot::{Snapshot, disk_usage};
use crate::{ImageRecord, Result, gc};
use oci::Digest;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes on disk, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Content.
    pub blobs_bytes: u64,
    /// Unpacked layers, and what snapshotters made of them: erofs images, btrfs trees. Blocks that btrfs shares between
    /// layers and trees count in both.
    pub layers_bytes: u64,
    /// Writable parts of snapshots.
    pub snapshots_bytes: u64,
    /// What garbage collection would free now.
    pub reclaimable_bytes: u64,
    /// Number of images.
    pub images: u64,
    /// Number of snapshots.
    pub snapshots: u64,
}

/// What one image takes: blobs and unpacked layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub image: ImageRecord,
    /// Bytes on disk of everything it is made of.
    pub size_bytes: u64,
    /// Part of that which other images are made of, too.
    pub shared_bytes: u64,
    /// Part of that which removing the image would free, when no snapshot or lease holds it.
    pub unique_bytes: u64,
    /// Number of snapshots made from it.
    pub snapshots: u64,
}

/// [`Usage`] and what it is made up of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The sums.
    pub usage: Usage,
    /// By image, oldest first.
    pub images: Vec<ImageUsage>,
    /// With sizes.
    pub snapshots: Vec<Snapshot>,
}

impl Store {
    /// Bytes on disk. Walks through layers and snapshots.
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.usage_detail()?.usage)
    }

    /// [`Self::usage`], also by image and snapshot.
    pub fn usage_detail(&self) -> Result<Detail> {
        let images = self.images().list()?;
        let snapshots = self.snapshots().list(true)?;
        let blobs: HashMap<Digest, u64> = self
            .content()
            .list()?
            .into_iter()
            .map(|(d, _)| d)
            .map(|digest| {
                let bytes = self.content().disk_usage(&digest);
                (digest, bytes)
            })
            .collect();
        let mut layers = HashMap::new();
        for row in self.db().look(rows)? {
            let bytes = self.layers().disk_usage(row.id);
            layers.insert(row.diff_id, bytes);
        }
        let usage = Usage {
            blobs_bytes: blobs.values().sum(),
            layers_bytes: layers.values().sum::<u64>() + disk_usage(&self.dir("chains")),
            snapshots_bytes: snapshots.iter().map(|s| s.size_bytes).sum(),
            reclaimable_bytes: gc::collect(self, true)?.reclaimed_bytes,
            images: images.len() as u64,
            snapshots: snapshots.len() as u64,
        };
        let parts = images.iter().map(|image| Ok(sizes(&gc::reachable(self, image)?, &blobs, &layers)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(Detail { usage, images: by_image(images, &parts, &snapshots), snapshots })
    }
}

/// Part to bytes; an unpacked layer and its uncompressed blob have one digest and are two parts.
type Parts = BTreeMap<(bool, Digest), u64>;

fn sizes(reached: &gc::Reached, blobs: &HashMap<Digest, u64>, layers: &HashMap<Digest, u64>) -> Parts {
    let blob = |d: &Digest| Some(((false, d.clone()), *blobs.get(d)?));
    let layer = |d: &Digest| Some(((true, d.clone()), *layers.get(d)?));
    reached.blobs.iter().filter_map(blob).chain(reached.layers.iter().filter_map(layer)).collect()
}

fn by_image(images: Vec<ImageRecord>, parts: &[Parts], snapshots: &[Snapshot]) -> Vec<ImageUsage> {
    let mut users: BTreeMap<&(bool, Digest), u32> = BTreeMap::new();
    for part in parts.iter().flat_map(BTreeMap::keys) {
        *users.entry(part).or_default() += 1;
    }
    let shared: BTreeSet<_> = users.into_iter().filter(|(_, n)| *n > 1).map(|(part, _)| part).collect();
    let one = |(image, parts): (ImageRecord, &Parts)| {
        let size_bytes = parts.values().sum();
        let shared_bytes = parts.iter().filter(|(part, _)| shared.contains(part)).map(|(_, bytes)| bytes).sum();
        let id = image.config.to_string();
        let made = snapshots.iter().filter(|s| s.image_id.as_ref() == Some(&id)).count() as u64;
        ImageUsage { image, size_bytes, shared_bytes, unique_bytes: size_bytes - shared_bytes, snapshots: made }
    };
    images.into_iter().zip(parts).map(one).collect()
}
