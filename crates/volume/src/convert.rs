//! Between the protocol's messages and this crate's types.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use api::types::v1 as types;
use api::volume::v1 as proto;

use crate::{
    Acquire, Changes, CopyUp, Driver, Error, Event, EventFilter, Filters, Finding, Mount, NewVolume, Result, Snapshot,
    Volume,
};

pub(crate) fn new_volume(request: proto::CreateVolumeRequest) -> Result<NewVolume> {
    Ok(NewVolume {
        name: request.name,
        driver: request.driver,
        options: request.options.into_iter().collect(),
        labels: request.labels.into_iter().collect(),
        size_bytes: size(request.size_bytes)?,
        uid: request.uid,
        gid: request.gid,
        mode: request.mode,
    })
}

fn size(bytes: i64) -> Result<Option<u64>> {
    let negative = |_| Error::Invalid { field: "size", value: bytes.to_string(), why: "it is negative".into() };
    u64::try_from(bytes).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0)).map_err(negative)
}

pub(crate) fn changes(request: proto::UpdateVolumeRequest) -> Result<Changes> {
    Ok(Changes {
        set_labels: request.set_labels.into_iter().collect(),
        remove_labels: request.remove_labels,
        size_bytes: size(request.size_bytes)?,
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(crate) fn volume(volume: Volume) -> proto::Volume {
    proto::Volume {
        id: volume.id,
        name: volume.name,
        driver: volume.driver,
        options: volume.options.into_iter().collect(),
        labels: volume.labels.into_iter().collect(),
        created_at: volume.created_at,
        mountpoint: volume.mountpoint.display().to_string(),
        anonymous: volume.anonymous,
        consumers: volume.consumers,
        size_bytes: volume.size_bytes.map_or(-1, signed),
        size_limit_bytes: volume.size_limit_bytes.map_or(0, signed),
        uid: volume.uid,
        gid: volume.gid,
        mode: volume.mode,
        image: volume.image.unwrap_or_default(),
        status: volume.status.into_iter().collect(),
    }
}

pub(crate) fn snapshot(snapshot: Snapshot) -> proto::Snapshot {
    let size_bytes = signed(snapshot.size_bytes);
    proto::Snapshot { name: snapshot.name, created_at: snapshot.created_at, size_bytes }
}

pub(crate) fn finding(finding: Finding) -> proto::Finding {
    let Finding { kind, subject, detail, repaired } = finding;
    proto::Finding { kind: kind.into(), subject, detail, repaired }
}

pub(crate) fn driver(driver: Driver) -> proto::Driver {
    let Driver { name, protocol, address, scope } = driver;
    proto::Driver { name, protocol: protocol.into(), address, scope }
}

/// Where an export goes or an import comes from.
pub(crate) enum Place {
    File(PathBuf),
    Artifact(String),
}

pub(crate) fn place(path: String, artifact: String) -> Result<Place> {
    let wrong = |value: &str, why: &str| Err(Error::Invalid { field: "path", value: value.into(), why: why.into() });
    match (path.as_str(), artifact.as_str()) {
        (path, "") if path.starts_with('/') => Ok(Place::File(path.into())),
        ("", "") => wrong("", "either a path or an artifact"),
        (path, "") => wrong(path, "expected an absolute path"),
        ("", _) => Ok(Place::Artifact(artifact)),
        (path, _) => wrong(path, "either a path or an artifact"),
    }
}

pub(crate) fn filters(filters: &HashMap<String, types::StringList>) -> Result<Filters> {
    Filters::parse(filters.iter().map(|(key, list)| (key.as_str(), list.values.as_slice())))
}

pub(crate) fn acquire(request: proto::AcquireVolumeRequest) -> Result<Acquire> {
    let invalid = |value: &str, why: &str| Error::Invalid { field: "copy-up", value: value.into(), why: why.into() };
    let copy_up = match (request.copy_up_from.as_str(), request.copy_up_layers.as_slice()) {
        ("", []) => None,
        ("", layers) if request.copy_up_path.starts_with('/') => {
            Some(CopyUp { layers: layers.iter().map(PathBuf::from).collect(), path: request.copy_up_path.into() })
        }
        ("", _) => return Err(invalid(&request.copy_up_path, "copy_up_path is an absolute path")),
        (from, []) => Some(CopyUp { layers: vec![from.into()], path: "/".into() }),
        (from, _) => return Err(invalid(from, "either copy_up_from or copy_up_layers")),
    };
    if let Some(relative) = copy_up.iter().flat_map(|it: &CopyUp| &it.layers).find(|layer| !layer.is_absolute()) {
        return Err(invalid(&relative.display().to_string(), "directories are given as absolute paths"));
    }
    Ok(Acquire {
        name: request.name,
        consumer: request.consumer,
        target: request.target,
        read_only: request.read_only,
        subpath: request.subpath,
        copy_up,
        recursive: request.recursive_read_only,
        overlay: request.overlay,
        idmap: request.idmap,
        userns: request.userns,
        owner: request.owner.map(|owner| (owner.uid, owner.gid)),
        propagation: request.propagation,
    })
}

pub(crate) fn mount(mount: Mount) -> types::Mount {
    types::Mount { r#type: mount.fstype, source: mount.source, target: mount.target, options: mount.options }
}

pub(crate) fn event_filter(filter: types::EventFilter) -> EventFilter {
    EventFilter {
        since_unix_nano: filter.since_unix_nano,
        until_unix_nano: filter.until_unix_nano,
        filters: filter.filters.into_iter().map(|(key, list)| (key, list.values)).collect::<BTreeMap<_, _>>(),
    }
}

pub(crate) fn event(event: Event) -> types::Event {
    types::Event {
        time_unix_nano: event.time_unix_nano,
        r#type: "volume".into(),
        action: event.action,
        id: event.volume,
        attributes: event.attributes.into_iter().collect(),
    }
}
