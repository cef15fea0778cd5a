//! Mounts of a new container: volumes taken from the volume tool, binds checked, tmpfs described.
use super::LABEL;
use crate::engine::Engine;
use crate::error::Error;
use crate::host;
use crate::spec::{merge::Merged, mounts};
use api::engine::v1::{ContainerConfig, MountKind, VolumeMount};
use api::types::v1::{Mount, StringList};
use api::volume::v1::{
    AcquireVolumeRequest, CreateVolumeRequest, ListVolumesRequest, ReleaseVolumeRequest, RemoveVolumeRequest,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Volumes that were made on the way: removed again when the container does not come to be.
pub type Made = Arc<Mutex<Vec<String>>>;

/// All mounts in the order they were asked for, the image's own volumes last; and the names of the anonymous ones.
pub async fn acquire(
    engine: &Engine,
    id: &str,
    config: &ContainerConfig,
    merged: &Merged,
    rootfs: &[Mount],
    made: &Made,
) -> Result<(Vec<Mount>, Vec<String>), Error> {
    let layers = layer_dirs(rootfs);
    let mapped = super::userns::is_wanted(config);
    let mut list = Vec::new();
    let mut anonymous = Vec::new();
    let of_image = merged.anonymous_volumes.iter().map(|target| VolumeMount {
        kind: MountKind::Volume.into(),
        target: target.clone(),
        ..Default::default()
    });
    for wanted in config.mounts.iter().cloned().chain(of_image) {
        let mount = match kind(&wanted) {
            MountKind::Bind => {
                host::bind_source(&wanted.source, wanted.create_host_path)?;
                mounts::host_bind(&wanted)?
            }
            MountKind::Tmpfs => mounts::tmpfs(&wanted),
            _ => {
                let name = match wanted.source.as_str() {
                    "" => {
                        let name = create_anonymous(engine, id).await?;
                        anonymous.push(name.clone());
                        name
                    }
                    name => name.to_string(),
                };
                let mut mount = volume(engine, id, &name, &wanted, &layers, made).await?;
                // Stored ids are the image's, as in the rootfs: containers with other mappings can share it.
                if mapped && mount.r#type == "bind" {
                    mount.options.push("idmap".into());
                }
                mount
            }
        };
        list.push(mount);
    }
    Ok((list, anonymous))
}

/// A mount that says nothing of its kind is a bind when its source is a path.
pub fn kind(wanted: &VolumeMount) -> MountKind {
    match wanted.kind() {
        MountKind::Unspecified if wanted.source.starts_with('/') => MountKind::Bind,
        MountKind::Unspecified => MountKind::Volume,
        other => other,
    }
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
    id: &str,
    name: &str,
    wanted: &VolumeMount,
    layers: &[String],
    made: &Made,
) -> Result<Mount, Error> {
    let copy_up = !wanted.no_copy && !layers.is_empty();
    let request = AcquireVolumeRequest {
        name: name.to_string(),
        consumer: id.to_string(),
        target: wanted.target.clone(),
        read_only: wanted.read_only,
        subpath: wanted.subpath.clone(),
        copy_up_layers: if copy_up { layers.to_vec() } else { Vec::new() },
        copy_up_path: if copy_up { wanted.target.clone() } else { String::new() },
        ..Default::default()
    };
    let answer = match engine.clients().volume_acquire(request.clone()).await {
        Err(error) if error.is_not_found() => {
            create(engine, name, made).await?;
            engine.clients().volume_acquire(request).await?
        }
        other => other?,
    };
    let mut mount = answer.mount.unwrap_or_default();
    mount.target = wanted.target.clone();
    Ok(mount)
}

// Noted before it is made: an answer that is lost must not leave the volume.
async fn create(engine: &Engine, name: &str, made: &Made) -> Result<(), Error> {
    let made = || made.lock().unwrap_or_else(PoisonError::into_inner);
    made().push(name.to_string());
    let request = CreateVolumeRequest { name: name.to_string(), ..Default::default() };
    if !engine.clients().volume_create(request).await?.created {
        made().retain(|n| n != name);
    }
    Ok(())
}

async fn create_anonymous(engine: &Engine, id: &str) -> Result<String, Error> {
    let labels = [(LABEL.to_string(), id.to_string())].into();
    let answer = engine.clients().volume_create(CreateVolumeRequest { labels, ..Default::default() }).await?;
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
