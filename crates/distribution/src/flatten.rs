//! The same image with one layer: what was deleted on the way is not in it.

use std::sync::Arc;

use oci::image::{History, RootFs};
use oci::manifest::Manifest;
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};

use crate::Store;
use crate::copy::{Origin, Place, Target, deliver, look, open_image};
use crate::error::{Error, Result};
use crate::layer::{Compression, Packed, pack, packed};
use crate::pull::Lease;
use crate::transport::Source;
use crate::transport::copy::{Select, copy as transfer, read_config};
use crate::transport::made::{Made, Part, document};
use crate::transport::pump::blocking;
use crate::transport::stored::StoreSink;

/// What to flatten.
#[derive(Debug, Clone)]
pub struct Flatten {
    /// The image.
    pub source: Origin,
    /// Where the result goes.
    pub destination: Target,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// Of the one layer.
    pub compression: Compression,
}

/// Makes the image with one layer, and gives its digest. Its layers are unpacked in the store for that, under a lease.
///
/// # Errors
/// Those of the places and of unpacking.
pub async fn flatten(wanted: &Flatten, store: &Store, place: Place<'_>) -> Result<Digest> {
    let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
    let source: Arc<dyn Source> = open_image(&wanted.source, wanted.platform.as_ref(), place).await?.into();
    let what = source.describe();
    let image = look(source.as_ref(), &platform).await?;
    let old = read_config(&image.config, &image.manifest, &what)?;
    let lease = Lease::of(store, None).await?;
    let sink = StoreSink::new(store, Some(lease.id()), true);
    transfer(source.as_ref(), &sink, &Select::Platform(platform), place.reporter).await?;
    let (layers, compression) = (store.clone(), wanted.compression);
    let diff_ids = old.rootfs.diff_ids.clone();
    let (layer, diff_id, part) = blocking(move || one_layer(&layers, &diff_ids, compression)).await?;
    let config = serde_json::to_vec(&config(old, diff_id, &image.descriptor.digest));
    let config = config.map_err(|e| Error::manifest(&what, e))?;
    let manifest = Manifest {
        media_type: Some(media_type::MANIFEST.into()),
        config: Descriptor::of(media_type::CONFIG, &config),
        layers: vec![layer.clone()],
        ..image.manifest
    };
    let mut made = Made::new(&what, document(&manifest, media_type::MANIFEST, &what)?);
    made.part(&layer.digest, part);
    made.part(&manifest.config.digest, Part::Bytes(config));
    Ok(deliver(&made, &wanted.destination, &Select::All, false, place).await?.root.digest)
}

/// The merged tree as a blob in an unnamed file.
fn one_layer(store: &Store, diff_ids: &[Digest], compression: Compression) -> Result<(Descriptor, Digest, Part)> {
    let failed = || Error::io("write a file in", store.root());
    let spool = tempfile::tempfile_in(store.root()).map_err(failed())?;
    let mut archive = pack(spool, compression).map_err(failed())?;
    store.snapshots().export_layers(diff_ids, &mut archive)?;
    let Packed { file, descriptor, diff_id } = packed(archive, compression).map_err(failed())?;
    Ok((descriptor, diff_id, Part::Spool(Arc::new(file))))
}

fn config(old: ImageConfig, diff_id: Digest, from: &Digest) -> ImageConfig {
    let step = History {
        created: old.created.clone(),
        created_by: Some("pier-distribution flatten".into()),
        comment: Some(format!("flattened from {from}")),
        ..History::default()
    };
    ImageConfig { rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() }, history: vec![step], ..old }
}
