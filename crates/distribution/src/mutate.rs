//! The same image with another config, other annotations or more layers. Nothing is unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::image::History;
use oci::manifest::Manifest;
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};

use crate::copy::{Origin, Place, Target, deliver, look, open_image};
use crate::error::{Error, Result};
use crate::layer::compress::decoder;
use crate::layer::{Compression, Hashing, Packed, pack, packed};
use crate::transport::Source;
use crate::transport::copy::{Select, read_config};
use crate::transport::made::{Made, Part, document};
use crate::transport::pump::blocking;

/// What to change.
#[derive(Debug, Clone)]
pub struct Mutate {
    /// The image.
    pub source: Origin,
    /// Where the result goes.
    pub destination: Target,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Of the manifest; an empty value takes one away.
    pub annotations: BTreeMap<String, String>,
    /// Tars (plain, gzip, zstd) that become layers on top.
    pub append: Vec<PathBuf>,
    /// RFC 3339; none: as it is.
    pub created: Option<String>,
}

/// Makes the changed image, and gives its digest.
///
/// # Errors
/// [`Error::NameInvalid`] for a change that cannot be applied; those of the places.
pub async fn mutate(wanted: &Mutate, place: Place<'_>) -> Result<Digest> {
    let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
    let source: Arc<dyn Source> = open_image(&wanted.source, wanted.platform.as_ref(), place).await?.into();
    let what = source.describe();
    let image = look(source.as_ref(), &platform).await?;
    let mut config = read_config(&image.config, &image.manifest, &what)?;
    let mut manifest = image.manifest.clone();
    edit(wanted, &mut config, &mut manifest)?;
    let mut parts = Vec::new();
    for path in &wanted.append {
        let (from, scratch) = (path.clone(), place.scratch.to_owned());
        let (layer, diff_id, part) = blocking(move || layer_of(&from, &scratch)).await?;
        config.rootfs.diff_ids.push(diff_id);
        let by = format!("append {}", path.file_name().unwrap_or_default().display());
        config.history.push(History { created_by: Some(by), ..History::default() });
        parts.push((layer.digest.clone(), part));
        manifest.layers.push(layer);
    }
    let bytes = serde_json::to_vec(&config).map_err(|e| Error::manifest(&what, e))?;
    manifest.config = Descriptor::of(&image.manifest.config.media_type, &bytes);
    let media_type = manifest.media_type.clone().unwrap_or_else(|| media_type::MANIFEST.into());
    let mut made = Made::new(&what, document(&manifest, &media_type, &what)?).over(source);
    made.part(&manifest.config.digest, Part::Bytes(bytes));
    parts.into_iter().for_each(|(digest, part)| made.part(&digest, part));
    Ok(deliver(&made, &wanted.destination, &Select::All, false, place).await?.root.digest)
}

fn edit(wanted: &Mutate, config: &mut ImageConfig, manifest: &mut Manifest) -> Result<()> {
    crate::change::apply(&mut config.config, &wanted.changes)?;
    let steps = wanted.changes.iter().map(|change| History {
        created: wanted.created.clone(),
        created_by: Some(change.clone()),
        empty_layer: true,
        ..History::default()
    });
    config.history.extend(steps);
    if let Some(created) = &wanted.created {
        if let Err(e) = created.parse::<jiff::Timestamp>() {
            let problem = e.to_string();
            return Err(Error::NameInvalid { what: "time of creation", name: created.clone(), problem });
        }
        config.created = Some(created.clone());
    }
    for (key, value) in &wanted.annotations {
        match value.as_str() {
            "" => drop(manifest.annotations.remove(key)),
            value => drop(manifest.annotations.insert(key.clone(), value.into())),
        }
    }
    Ok(())
}

/// A tar as a layer: a plain one is compressed with gzip, a compressed one is taken as it is.
fn layer_of(path: &Path, scratch: &Path) -> Result<(Descriptor, Digest, Part)> {
    let failed = || Error::io("read", path);
    let mut file = File::open(path).map_err(failed())?;
    let plain = decoder(&mut file, "")?;
    let format = plain.format;
    if format == Compression::None {
        return compressed(plain, path, scratch);
    }
    let diff_id = measure(plain).map_err(|source| Error::Decompress { format: format.name(), source })?.0;
    file.rewind().map_err(failed())?;
    let (digest, size) = measure(&file).map_err(failed())?;
    Ok((Descriptor::new(format.media_type(), digest, size), diff_id, Part::File(path.to_owned())))
}

fn measure(mut from: impl Read) -> std::io::Result<(Digest, u64)> {
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut from, &mut hashing)?;
    let (_, digest, size) = hashing.finish();
    Ok((digest, size))
}

fn compressed(mut plain: impl Read, path: &Path, scratch: &Path) -> Result<(Descriptor, Digest, Part)> {
    let write = || Error::io("write a file in", scratch);
    let spool = tempfile::tempfile_in(scratch).map_err(write())?;
    let mut archive = pack(spool, Compression::Gzip).map_err(write())?;
    std::io::copy(&mut plain, &mut archive).map_err(Error::io("compress", path))?;
    let Packed { file, descriptor, diff_id } = packed(archive, Compression::Gzip).map_err(write())?;
    Ok((descriptor, diff_id, Part::Spool(Arc::new(file))))
}
