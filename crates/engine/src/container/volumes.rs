//! Mounts of a new container: volumes taken from the volume tool, binds checked, tmpfs described.
use super::{LABEL, user};
use crate::engine::Engine;
use crate::error::Error;
use crate::host;
pub use crate::spec::mounts::{is_volume, kind};
use crate::spec::{merge::Merged, mounts};
use api::engine::v1::{ContainerConfig, MountKind, MountPoint, VolumeMount};
use api::types::v1::{Mount, StringList};
use api::volume::v1::{
    AcquireVolumeRequest, AcquireVolumeResponse, CreateVolumeRequest, ListVolumesRequest, Owner, ReleaseVolumeRequest,
    RemoveVolumeRequest,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Volumes that were made on the way: removed again when the container does not come to be.
pub type Made = Arc<Mutex<Vec<String>>>;

/// Whose mounts they are, and what they depend on.
pub struct Wanted<'a> {
    /// The container.
    pub id: &'a str,
    /// As it was asked for.
    pub config: &'a ContainerConfig,
    /// With the image's defaults.
    pub merged: &'a Merged,
    /// Of its fresh snapshot.
    pub rootfs: &'a [Mount],
    /// Ids of the images among the mounts, in their order.
    pub images: Vec<String>,
    /// Of its user namespace; empty: it has none.
    pub idmap: &'a str,
}

/// What a container's mounts came to.
#[derive(Default)]
pub struct Taken {
    /// For the specification.
    pub mounts: Vec<Mount>,
    /// For people, and for other containers.
    pub points: Vec<MountPoint>,
    /// Names of the anonymous volumes.
    pub anonymous: Vec<String>,
}

/// All mounts in the order they were asked for, the image's own volumes last.
pub async fn acquire(engine: &Engine, all: &Wanted<'_>, made: &Made) -> Result<Taken, Error> {
    let layers = layer_dirs(all.rootfs);
    let owners = Owners { user: &all.merged.user, layers: &layers, idmap: all.idmap };
    let id = all.id;
    let mut taken = Taken::default();
    let mut images = all.images.iter();
    let of_image = all.merged.anonymous_volumes.iter().map(|target| VolumeMount {
        kind: MountKind::Volume.into(),
        target: target.clone(),
        driver: all.config.volume_driver.clone(),
        ..Default::default()
    });
    for wanted in all.config.mounts.iter().cloned().chain(of_image) {
        let (mount, volume) = match kind(&wanted) {
            MountKind::Bind => {
                host::bind_source(&wanted.source, wanted.create_host_path)?;
                if !is_volume(&wanted) {
                    (mounts::host_bind(&wanted, host::mounts_read_only_below()), None)
                } else {
                    let bind = [("type", "none"), ("o", "bind"), ("device", wanted.source.as_str())];
                    let name = create_for_mount(engine, id, "local", &bind).await?;
                    let request = owners.request(id, &name, &wanted)?;
                    volume(engine, request, &wanted, made).await?
                }
            }
            MountKind::Tmpfs => (mounts::tmpfs(&wanted), None),
            MountKind::Image => {
                let image = images.next().unwrap_or(&wanted.source);
                let options = [("image", image.as_str()), ("pull", "never")];
                let name = create_for_mount(engine, id, "image", &options).await?;
                volume(engine, owners.request(id, &name, &wanted)?, &wanted, made).await?
            }
            _ => {
                let mut name = wanted.source.clone();
                if name.is_empty() {
                    name = create_anonymous(engine, id, &wanted).await?;
                    taken.anonymous.push(name.clone());
                }
                volume(engine, owners.request_own(id, &name, &wanted)?, &wanted, made).await?
            }
        };
        taken.points.push(point(&wanted, &mount, volume));
        taken.mounts.push(mount);
    }
    Ok(taken)
}

/// A mount for people; of a volume that stands for it, nothing is said.
fn point(wanted: &VolumeMount, mount: &Mount, volume: Option<AcquireVolumeResponse>) -> MountPoint {
    let kind = kind(wanted);
    let volume = volume.filter(|_| kind == MountKind::Volume).unwrap_or_default();
    let source = match kind {
        MountKind::Volume => mount.source.clone(),
        _ => wanted.source.clone(),
    };
    MountPoint {
        kind: kind.into(),
        name: volume.name,
        volume_id: volume.volume_id,
        driver: volume.driver,
        source,
        target: wanted.target.clone(),
        read_only: wanted.read_only,
        propagation: wanted.propagation.clone(),
    }
}

/// Whose the files of mounts are to be.
struct Owners<'a> {
    user: &'a str,
    layers: &'a [String],
    idmap: &'a str,
}

impl Owners<'_> {
    /// For a volume that is more than one mount's.
    fn request_own(&self, id: &str, name: &str, wanted: &VolumeMount) -> Result<AcquireVolumeRequest, Error> {
        let mut request = self.request(id, name, wanted)?;
        // Stored ids are the image's, as in the rootfs: containers with other mappings can share it.
        request.userns = self.idmap.to_string();
        if !wanted.no_copy && !self.layers.is_empty() {
            (request.copy_up_layers, request.copy_up_path) = (self.layers.to_vec(), wanted.target.clone());
        }
        Ok(request)
    }

    fn request(&self, id: &str, name: &str, wanted: &VolumeMount) -> Result<AcquireVolumeRequest, Error> {
        let mut request = AcquireVolumeRequest {
            name: name.to_string(),
            consumer: id.to_string(),
            target: wanted.target.clone(),
            read_only: wanted.read_only,
            subpath: wanted.subpath.clone(),
            recursive_read_only: wanted.recursive_read_only,
            overlay: wanted.overlay,
            idmap: wanted.idmap.clone(),
            propagation: wanted.propagation.clone(),
            ..Default::default()
        };
        // "keep-id" by itself means the container's user, as U does.
        if wanted.chown || wanted.idmap == "keep-id" {
            let (uid, gid) = user::ids(self.user, self.layers)?;
            if wanted.chown {
                request.owner = Some(Owner { uid, gid });
            } else {
                request.idmap = format!("keep-id:uid={uid},gid={gid}");
            }
        }
        // A directory of the host is as it is to others, unless it is to look otherwise; an image's root is the container's.
        let changed_image = wanted.overlay && kind(wanted) == MountKind::Image;
        if request.owner.is_some() || !request.idmap.is_empty() || changed_image {
            request.userns = self.idmap.to_string();
        }
        Ok(request)
    }
}

/// The label of volumes that stand for one mount of a container, and go with it.
pub const MOUNT_LABEL: &str = "pier.mount-of";

async fn create_for_mount(engine: &Engine, id: &str, driver: &str, options: &[(&str, &str)]) -> Result<String, Error> {
    let labels = [(LABEL, id), (MOUNT_LABEL, id)];
    let labels = labels.map(|(key, value)| (key.to_string(), value.to_string())).into();
    let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let request = CreateVolumeRequest { driver: driver.into(), options, labels, ..Default::default() };
    Ok(engine.clients().volume_create(request).await?.volume.map(|v| v.name).unwrap_or_default())
}

/// Removes the volumes that stood for mounts of a container; it holds them no more.
pub async fn remove_mounts(engine: &Engine, id: &str) -> Result<(), Error> {
    let filters = [("label".to_string(), StringList { values: vec![format!("{MOUNT_LABEL}={id}")] })].into();
    let list = engine.clients().volume_list(ListVolumesRequest { filters, ..Default::default() }).await?;
    for volume in list.volumes {
        engine.clients().volume_remove(RemoveVolumeRequest { name: volume.name, force: true }).await?;
    }
    Ok(())
}

/// Gives back what [`acquire`] took, and removes what it made.
pub async fn undo(engine: Engine, id: String, made: Made) -> Result<(), Error> {
    let request = ReleaseVolumeRequest { consumer: id.clone(), remove_anonymous: true, ..Default::default() };
    engine.clients().volume_release(request).await?;
    let mut names = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
    // One whose making was not answered has no name here yet.
    let filters = [("label".to_string(), StringList { values: vec![format!("{LABEL}={id}")] })].into();
    let list = engine.clients().volume_list(ListVolumesRequest { filters, ..Default::default() }).await?;
    names.extend(list.volumes.into_iter().map(|v| v.name));
    for name in names {
        match engine.clients().volume_remove(RemoveVolumeRequest { name, force: true }).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn volume(
    engine: &Engine,
    request: AcquireVolumeRequest,
    wanted: &VolumeMount,
    made: &Made,
) -> Result<(Mount, Option<AcquireVolumeResponse>), Error> {
    let mut answer = match engine.clients().volume_acquire(request.clone()).await {
        Err(error) if error.is_not_found() => {
            create(engine, &request.name, wanted, made).await?;
            engine.clients().volume_acquire(request).await?
        }
        other => other?,
    };
    let mut mount = answer.mount.take().unwrap_or_default();
    mount.target = wanted.target.clone();
    mount.options.extend(wanted.flags.iter().cloned());
    Ok((mount, Some(answer)))
}

// Noted before it is made: an answer that is lost must not leave the volume.
async fn create(engine: &Engine, name: &str, wanted: &VolumeMount, made: &Made) -> Result<(), Error> {
    let made = || made.lock().unwrap_or_else(PoisonError::into_inner);
    made().push(name.to_string());
    let request = CreateVolumeRequest {
        name: name.to_string(),
        driver: wanted.driver.clone(),
        options: wanted.driver_options.clone(),
        labels: wanted.labels.clone(),
        ..Default::default()
    };
    if !engine.clients().volume_create(request).await?.created {
        made().retain(|n| n != name);
    }
    Ok(())
}

async fn create_anonymous(engine: &Engine, id: &str, wanted: &VolumeMount) -> Result<String, Error> {
    let mut labels = wanted.labels.clone();
    labels.insert(LABEL.to_string(), id.to_string());
    let (driver, options) = (wanted.driver.clone(), wanted.driver_options.clone());
    let request = CreateVolumeRequest { driver, options, labels, ..Default::default() };
    let answer = engine.clients().volume_create(request).await?;
    Ok(answer.volume.map(|v| v.name).unwrap_or_default())
}

/// Root directories of the layers below a fresh snapshot, lowest first.
fn layer_dirs(rootfs: &[Mount]) -> Vec<String> {
    let Some(mount) = rootfs.iter().find(|m| matches!(m.target.as_str(), "" | "/")) else { return Vec::new() };
    if !matches!(mount.r#type.as_str(), "overlay" | "fuse.fuse-overlayfs") {
        return vec![mount.source.clone()];
    }
    let mut dirs: Vec<String> = Vec::new();
    for option in &mount.options {
        if let Some(list) = option.strip_prefix("lowerdir=") {
            dirs.extend(split_unescaped(list));
        } else if let Some(dir) = option.strip_prefix("lowerdir+=") {
            dirs.push(dir.to_string());
        }
    }
    dirs.reverse();
    dirs
}

// Overlayfs separates by ':' and escapes one that is meant by '\'.
fn split_unescaped(list: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.last_mut().into_iter().for_each(|s| s.extend(chars.next())),
            ':' => out.push(String::new()),
            c => out.last_mut().into_iter().for_each(|s| s.push(c)),
        }
    }
    out.retain(|s| !s.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_a_snapshot_lowest_first() {
        let overlay = |option: &str| Mount {
            r#type: "overlay".into(),
            options: vec!["upperdir=/u".into(), option.into()],
            ..Default::default()
        };
        assert_eq!(layer_dirs(&[overlay("lowerdir=/c:/b\\:x:/a")]), ["/a", "/b:x", "/c"]);
        assert_eq!(layer_dirs(&[overlay("lowerdir+=/c")]), ["/c"]);
        let copy = Mount { r#type: "bind".into(), source: "/s".into(), target: "/".into(), ..Default::default() };
        assert_eq!(layer_dirs(&[copy]), ["/s"]);
        assert!(layer_dirs(&[]).is_empty());
    }
}
