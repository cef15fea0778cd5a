//! The same image on another base: the layers of the old base are exchanged for those of the new one, the rest stays. Nothing is
//! unpacked.

use std::sync::Arc;

use oci::image::History;
use oci::manifest::Manifest;
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};

use crate::copy::{Look, Origin, Place, Target, deliver, look, open, open_image};
use crate::error::{Error, Result};
use crate::transport::copy::{Select, read_config};
use crate::transport::made::{Made, Part, document};
use crate::transport::{Location, Source};

/// Name of the image that an image was built on (image-spec, annotations.md).
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Its digest at that time.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What to rebase.
#[derive(Debug, Clone)]
pub struct Rebase {
    /// The image.
    pub source: Origin,
    /// What it was built on; none: what its annotations say.
    pub old_base: Option<Origin>,
    /// What it shall stand on; none: what the base's name in its annotations stands for now.
    pub new_base: Option<Origin>,
    /// Where the result goes.
    pub destination: Target,
    /// None: this host's.
    pub platform: Option<Platform>,
}

/// Makes the image on the new base, and gives its digest.
///
/// # Errors
/// [`Error::ManifestInvalid`] when the image does not stand on the old base; those of the places.
pub async fn rebase(wanted: &Rebase, place: Place<'_>) -> Result<Digest> {
    let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
    let source: Arc<dyn Source> = open_image(&wanted.source, wanted.platform.as_ref(), place).await?.into();
    let image = look(source.as_ref(), &platform).await?;
    let said = |digest: bool| base_of(&image, &wanted.source, digest, &source.describe());
    let old = wanted.old_base.clone().map_or_else(|| said(true), Ok)?;
    let new = wanted.new_base.clone().map_or_else(|| said(false), Ok)?;
    let old = look(open(&old, false, place).await?.as_ref(), &platform).await?;
    let base: Arc<dyn Source> = open(&new, false, place).await?.into();
    let new = look(base.as_ref(), &platform).await?;
    let (mut manifest, config) = plan(&image, &old, &new, &source.describe())?;
    let bytes = serde_json::to_vec(&config).map_err(|e| Error::manifest(source.describe(), e))?;
    manifest.config = Descriptor::of(&image.manifest.config.media_type, &bytes);
    if let Location::Registry(reference) = wanted.new_base.as_ref().map_or(&wanted.source.location, |o| &o.location)
        && wanted.new_base.is_some()
    {
        manifest.annotations.insert(BASE_NAME.into(), reference.to_string());
    }
    manifest.annotations.insert(BASE_DIGEST.into(), new.root.digest.to_string());
    let media_type = manifest.media_type.clone().unwrap_or_else(|| media_type::MANIFEST.into());
    let mut made = Made::new(source.describe(), document(&manifest, &media_type, &source.describe())?).over(source);
    made.part(&manifest.config.digest, Part::Bytes(bytes));
    for layer in &new.manifest.layers {
        made.part(&layer.digest, Part::Of(base.clone()));
    }
    Ok(deliver(&made, &wanted.destination, &Select::All, false, place).await?.root.digest)
}

/// The base that an image's annotations name: as it was, by digest, or as it is now.
fn base_of(image: &Look, origin: &Origin, then: bool, what: &str) -> Result<Origin> {
    let annotation = |key: &str| {
        let found = image.manifest.annotations.get(key);
        found.ok_or_else(|| Error::manifest(what, format!("it has no annotation {key}: name the base")))
    };
    let mut reference = crate::image::parse(annotation(BASE_NAME)?)?;
    if then {
        let digest = annotation(BASE_DIGEST)?;
        reference = reference.with_digest(crate::convert::digest(digest)?);
    }
    Ok(Origin { location: Location::Registry(reference), registry: origin.registry.clone() })
}

/// Manifest (its config's descriptor is still the image's) and config of the new image.
fn plan(image: &Look, old: &Look, new: &Look, what: &str) -> Result<(Manifest, ImageConfig)> {
    let config = read_config(&image.config, &image.manifest, what)?;
    let old_config = read_config(&old.config, &old.manifest, what)?;
    let new_config = read_config(&new.config, &new.manifest, what)?;
    let below = old_config.rootfs.diff_ids.len();
    if !config.rootfs.diff_ids.starts_with(&old_config.rootfs.diff_ids) {
        return Err(Error::manifest(what, "it does not begin with the layers of the old base"));
    }
    let mut manifest = image.manifest.clone();
    manifest.layers = [&new.manifest.layers, &image.manifest.layers[below..]].concat();
    let mut made = config.clone();
    made.rootfs.diff_ids = [&new_config.rootfs.diff_ids[..], &config.rootfs.diff_ids[below..]].concat();
    let own = own_history(&config.history, &old_config.history, below);
    made.history = new_config.history.iter().chain(own).cloned().collect();
    made.os.clone_from(&new_config.os);
    made.os_version.clone_from(&new_config.os_version);
    made.architecture.clone_from(&new_config.architecture);
    made.variant.clone_from(&new_config.variant);
    Ok((manifest, made))
}

/// The part of a history that comes after `layers` layers of the base, and after the base's own steps without layers.
fn own_history<'a>(all: &'a [History], base: &[History], layers: usize) -> &'a [History] {
    let count = |steps: &[History]| steps.iter().filter(|step| !step.empty_layer).count();
    if base.len() <= all.len() && count(&all[..base.len()]) == layers {
        return &all[base.len()..];
    }
    let end = (0..=all.len()).find(|end| count(&all[..*end]) == layers).unwrap_or(all.len());
    &all[end..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transport::copy::describe;

    fn made_of(layers: &[&str], arch: &str) -> Look {
        let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer.as_bytes())).collect();
        let history: Vec<History> =
            layers.iter().map(|layer| History { created_by: Some((*layer).into()), ..History::default() }).collect();
        let config = ImageConfig {
            architecture: arch.into(),
            os: "linux".into(),
            rootfs: oci::image::RootFs { diff_ids: ids, ..Default::default() },
            history,
            ..ImageConfig::default()
        };
        let bytes = serde_json::to_vec(&config).unwrap();
        let layers = layers.iter().map(|layer| Descriptor::of(media_type::LAYER, layer.as_bytes())).collect();
        let manifest = Manifest::new(Descriptor::of(media_type::CONFIG, &bytes), layers);
        let raw = document(&manifest, media_type::MANIFEST, "it").unwrap();
        Look { descriptor: describe(&raw), root: raw.clone(), raw, manifest, config: bytes }
    }

    #[test]
    fn own_layers_move_to_the_new_base() {
        let (image, old) = (made_of(&["a", "b", "own"], "amd64"), made_of(&["a", "b"], "amd64"));
        let (manifest, config) = plan(&image, &old, &made_of(&["n"], "arm64"), "it").unwrap();
        let digests: Vec<_> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        assert_eq!(digests, [Digest::of(b"n"), Digest::of(b"own")]);
        assert_eq!(config.rootfs.diff_ids, digests);
        let steps: Vec<_> = config.history.iter().flat_map(|step| step.created_by.as_deref()).collect();
        assert_eq!((steps, config.architecture.as_str()), (vec!["n", "own"], "arm64"));
        let wrong = plan(&image, &made_of(&["b"], "amd64"), &old, "it").unwrap_err();
        assert!(wrong.to_string().contains("old base"), "{wrong}");
    }

    #[test]
    fn steps_without_layers_belong_to_the_base_that_has_them() {
        let step = |by: &str, empty_layer| History { created_by: Some(by.into()), empty_layer, ..History::default() };
        let all = [step("a", false), step("cmd", true), step("env", true), step("own", false)];
        assert_eq!(own_history(&all, &all[..2], 1), &all[2..]);
        assert_eq!(own_history(&all, &[], 1), &all[1..], "a base without a history");
    }
}
