//! The calls on images. Each converts and calls what the verb of that name calls.

use api::distribution::v1 as pb;

use super::location;
use super::locations::{Ground, read_recast};
use crate::error::Result;
use crate::progress::Reporter;
use crate::pull::Lease;
use crate::registry::MANIFEST_MAX;
use crate::transport::pump::blocking;
use crate::{ImageRecord, Store, convert, copy, create, gc, image, import, pull, push, save};

impl Ground {
    pub fn read_pull(&self, from: pb::PullRequest) -> Result<pull::Pull> {
        Ok(pull::Pull {
            reference: image::parse(&from.reference)?,
            platform: from.platform.map(convert::read_platform),
            registry: self.options(from.registry),
            all_platforms: from.all_platforms,
            no_unpack: from.no_unpack,
            policy: from.policy.parse()?,
            lease: Some(from.lease).filter(|lease| !lease.is_empty()),
            referrers: from.referrers,
        })
    }

    pub async fn pull(self, wanted: pull::Pull, reporter: Reporter) -> Result<pb::PullResult> {
        let pulled = pull::pull(&self.store, &wanted, &reporter).await?;
        let image = Some(message(&self.store, pulled.image).await?);
        Ok(pb::PullResult { image, digest: pulled.digest.to_string(), changed: pulled.changed })
    }

    pub fn read_push(&self, from: pb::PushRequest) -> Result<push::Push> {
        let destination = Some(from.destination).filter(|name| !name.is_empty());
        Ok(push::Push {
            reference: from.reference,
            destination: destination.as_deref().map(image::parse).transpose()?,
            registry: self.options(from.registry),
            all_platforms: from.all_platforms,
            referrers: from.referrers,
        })
    }

    pub async fn push(self, wanted: push::Push, reporter: Reporter) -> Result<pb::PushResult> {
        let pushed = push::push(&self.store, &wanted, &reporter).await?;
        let size_bytes = i64::try_from(pushed.size_bytes).unwrap_or(i64::MAX);
        Ok(pb::PushResult { digest: pushed.digest.to_string(), size_bytes })
    }

    pub fn read_copy(&self, from: pb::CopyRequest) -> Result<copy::Copy> {
        let source = copy::Origin { location: location(&from.source)?, registry: self.options(from.source_registry) };
        let destination = copy::Target {
            location: location(&from.destination)?,
            registry: self.options(from.destination_registry),
            additional_tags: from.additional_tags,
        };
        Ok(copy::Copy {
            all_platforms: from.all_platforms,
            platform: from.platform.map(convert::read_platform),
            preserve_digests: from.preserve_digests,
            referrers: from.referrers,
            recast: read_recast(from.recast)?,
            ..copy::Copy::new(source, destination)
        })
    }

    pub async fn copy(self, wanted: copy::Copy, reporter: Reporter) -> Result<pb::CopyResult> {
        let digest = copy::copy(&wanted, self.place(&reporter)).await?;
        Ok(pb::CopyResult { digest: digest.to_string() })
    }

    pub async fn save(self, from: pb::SaveRequest, reporter: Reporter) -> Result<pb::SaveResult> {
        let wanted = save::Save {
            references: from.references,
            path: convert::path(&from.path)?,
            format: from.format.parse()?,
            referrers: from.referrers,
            platform: from.platform.map(convert::read_platform),
        };
        let size = save::save(&self.store, &wanted, &reporter).await?;
        Ok(pb::SaveResult { size_bytes: i64::try_from(size).unwrap_or(i64::MAX) })
    }

    pub async fn load(self, from: pb::LoadRequest, reporter: Reporter) -> Result<pb::LoadResult> {
        let wanted = save::Load {
            path: convert::path(&from.path)?,
            referrers: from.referrers,
            platform: from.platform.map(convert::read_platform),
            trust: self.registry.trust.clone(),
        };
        let mut images = Vec::new();
        for record in save::load(&self.store, &wanted, &reporter).await? {
            images.push(message(&self.store, record).await?);
        }
        Ok(pb::LoadResult { images })
    }

    pub async fn import(self, from: pb::ImportRequest, reporter: Reporter) -> Result<pb::ImportResult> {
        let wanted = import::Import {
            path: convert::path(&from.path)?,
            reference: from.reference,
            changes: from.changes,
            message: from.message,
            platform: from.platform.map(convert::read_platform),
            lease: String::new(),
        };
        let lease = Lease::of(&self.store, None).await?;
        let (writer, id) = (self.store.clone(), lease.id().to_owned());
        let record = blocking(move || import::import(&writer, &wanted, &id, &reporter)).await?;
        Ok(pb::ImportResult { image: Some(message(&self.store, record).await?) })
    }
}

async fn message(store: &Store, record: ImageRecord) -> Result<pb::Image> {
    let store = store.clone();
    blocking(move || convert::image(&store, &record)).await
}

pub fn list(store: &Store, from: pb::ListImagesRequest) -> Result<pb::ListImagesResponse> {
    let mut response = pb::ListImagesResponse::default();
    for record in image::list(store, &convert::filters(from.filters))? {
        // One damaged image does not hide the others.
        match convert::image(store, &record) {
            Ok(image) => response.images.push(image),
            Err(error) => response.warnings.push(format!("{}: {error}", record.config)),
        }
    }
    Ok(response)
}

pub fn get(store: &Store, from: pb::GetImageRequest) -> Result<pb::GetImageResponse> {
    let (mut record, _) = image::find(store, &from.reference)?;
    match from.platform.map(convert::read_platform) {
        Some(platform) if from.beside => record = image::variant(store, &record, &platform, &from.reference)?,
        platform => image::check_platform(&record, platform.as_ref(), &from.reference)?,
    }
    let raw_manifest = store.content().read(&record.target.digest, MANIFEST_MAX)?;
    Ok(pb::GetImageResponse { image: Some(convert::image(store, &record)?), raw_manifest })
}

pub fn prune(store: &Store, from: pb::PruneImagesRequest) -> Result<pb::PruneImagesResponse> {
    let removed = image::prune(store, from.all, &convert::filters(from.filters))?;
    let reclaimed_bytes = i64::try_from(gc::collect(store, false)?.reclaimed_bytes).unwrap_or(i64::MAX);
    Ok(pb::PruneImagesResponse { untagged: removed.untagged, deleted: removed.deleted, reclaimed_bytes })
}

pub fn export(store: &Store, from: pb::ExportRequest) -> Result<pb::ExportResponse> {
    let path = convert::path(&from.path)?;
    let size = match from.snapshot.as_str() {
        "" => import::export_image(store, &from.reference, &path)?,
        key => import::export_snapshot(store, key, &path)?,
    };
    Ok(pb::ExportResponse { size_bytes: i64::try_from(size).unwrap_or(i64::MAX) })
}

pub fn create(store: &Store, from: pb::CreateImageRequest) -> Result<pb::CreateImageResponse> {
    let wanted = create::Create {
        reference: from.reference,
        tags: from.tags,
        config: from.config,
        layers: from.layers.into_iter().map(convert::read_descriptor).collect::<Result<_>>()?,
        annotations: from.annotations.into_iter().collect(),
        lease: from.lease,
    };
    Ok(pb::CreateImageResponse { image: Some(convert::image(store, &create::create(store, &wanted)?)?) })
}
