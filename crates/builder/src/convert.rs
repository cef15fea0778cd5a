//! Between messages of the protocols and our values.

use api::builder::v1 as pb;
use api::types::v1 as types;
use oci::{Descriptor, Platform};
use std::path::{Path, PathBuf};
use sys::mount::Mount;

use crate::build::{DockerfileAt, Export, ExportKind, Request};
use crate::cache;
use crate::error::Error;
use crate::frontend::dockerfile::NamedContext;
use crate::progress::{Event, Status};

/// An answer of another tool that lacks something.
pub(crate) fn incomplete(action: &str, what: &str) -> Error {
    let message = format!("the answer has no {what}");
    Error::Store {
        action: action.to_owned(),
        cause: Box::new(rpc::Failure::new(rpc::Code::Internal, "INCOMPLETE_ANSWER", message)),
    }
}

/// "linux/amd64" as a message; nothing when empty.
pub(crate) fn platform(text: &str) -> Option<types::Platform> {
    let platform: Platform = text.parse().ok()?;
    Some(types::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        ..Default::default()
    })
}

pub(crate) fn mount(mount: types::Mount) -> Mount {
    Mount { fstype: mount.r#type, source: mount.source.into(), target: mount.target.into(), options: mount.options }
}

pub(crate) fn descriptor(descriptor: types::Descriptor) -> Result<Descriptor, Error> {
    let digest = descriptor.digest.parse().map_err(|_| incomplete("read a descriptor", "valid digest"))?;
    Ok(Descriptor::new(&descriptor.media_type, digest, u64::try_from(descriptor.size).unwrap_or(0)))
}

pub(crate) fn layer_descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

pub(crate) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A build request, checked.
pub fn request(message: pb::BuildRequest) -> Result<Request, Error> {
    let context = absolute("context", &message.context)?;
    let dockerfile = match (message.dockerfile_inline.is_empty(), absolute("dockerfile", &message.dockerfile)?) {
        (false, _) => DockerfileAt::Inline(String::from_utf8_lossy(&message.dockerfile_inline).into_owned()),
        (true, Some(path)) => DockerfileAt::Path(path),
        (true, None) => DockerfileAt::Context,
    };
    let platform = match message.platform {
        Some(platform) if !platform.os.is_empty() => {
            Platform::new(&platform.os, &platform.architecture, &platform.variant)
        }
        _ => Platform::host(),
    };
    let no_network = match message.network.as_str() {
        "" | "default" | "host" => false,
        "none" => true,
        other => {
            return Err(Error::Request(format!("unknown network {other:?}: known are default, host and none")));
        }
    };
    Ok(Request {
        context,
        dockerfile,
        target: Some(message.target).filter(|target| !target.is_empty()),
        build_args: message.build_args.into_iter().collect(),
        labels: message.labels.into_iter().collect(),
        tags: message.tags.iter().map(|tag| tag_name(tag)).collect::<Result<_, _>>()?,
        exports: message.outputs.into_iter().map(export).collect::<Result<_, _>>()?,
        no_cache: message.no_cache,
        pull: message.pull,
        platform,
        no_network,
        definition: message.definition,
        compression: compression(&message.compression)?,
        named_contexts: message.named_contexts.into_iter().map(named_context).collect(),
        memory_limit: u64::try_from(message.memory_limit_bytes).ok().filter(|limit| *limit > 0),
        extra_hosts: message.extra_hosts.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
    })
}

fn absolute(field: &str, text: &str) -> Result<Option<PathBuf>, Error> {
    let path = PathBuf::from(text);
    match text {
        "" => Ok(None),
        _ if path.is_absolute() => Ok(Some(path)),
        _ => Err(Error::Request(format!("{field}: {text:?} is not an absolute path"))),
    }
}

fn tag_name(text: &str) -> Result<String, Error> {
    let reference: oci::Reference =
        text.parse().map_err(|error: oci::reference::InvalidReference| Error::Request(error.to_string()))?;
    match reference.digest() {
        Some(_) => Err(Error::Request(format!("{text:?}: a name for an image cannot have a digest"))),
        None => Ok(reference.to_string()),
    }
}

fn compression(text: &str) -> Result<String, Error> {
    match text {
        "" | "gzip" => Ok("gzip".into()),
        "zstd" => Ok("zstd".into()),
        "plain" | "none" | "uncompressed" => Ok("none".into()),
        other => Err(Error::Request(format!("unknown compression {other:?}: known are gzip, zstd and plain"))),
    }
}

fn named_context((name, value): (String, String)) -> (String, NamedContext) {
    let context = match value.strip_prefix("docker-image://") {
        Some(image) => NamedContext::Image(image.to_owned()),
        None if value.starts_with('/') => NamedContext::Directory(value.into()),
        None => NamedContext::Image(value),
    };
    (name.to_ascii_lowercase(), context)
}

fn extra_host(text: &str) -> Result<(String, String), Error> {
    let (host, ip) = text.split_once([':', '=']).unwrap_or((text, ""));
    let ip = if ip == "host-gateway" { "127.0.0.1" } else { ip.trim_matches(['[', ']']) };
    if host.is_empty() || ip.parse::<std::net::IpAddr>().is_err() {
        return Err(Error::Request(format!("invalid extra host {text:?}: write host:ip")));
    }
    Ok((host.to_owned(), ip.to_owned()))
}

fn export(output: pb::Output) -> Result<Export, Error> {
    let kind = match output.r#type.as_str() {
        "" | "image" => ExportKind::Image,
        "oci-archive" | "oci" => ExportKind::OciArchive,
        "docker-archive" | "docker" => ExportKind::DockerArchive,
        "oci-dir" => ExportKind::OciDir,
        "local" => ExportKind::Local,
        "tar" => ExportKind::Tar,
        other => {
            let known = "image, oci-archive, docker-archive, oci-dir, local and tar";
            return Err(Error::Request(format!("unknown output type {other:?}: known are {known}")));
        }
    };
    let path = absolute("output path", &output.path)?;
    if kind != ExportKind::Image && path.is_none() {
        return Err(Error::Request(format!("the output {} needs a path", output.r#type)));
    }
    Ok(Export { kind, path: path.unwrap_or_default(), push: output.push })
}

/// An event as a message.
pub fn event(event: Event) -> pb::BuildResponse {
    let payload = match event {
        Event::Vertex(update) => pb::build_response::Payload::Vertex(pb::VertexUpdate {
            digest: update.digest,
            name: update.name,
            inputs: update.inputs,
            status: status(update.status).into(),
            error: update.error,
            started_unix_nano: update.started,
            completed_unix_nano: update.completed,
        }),
        Event::Log { digest, stream, data } => pb::build_response::Payload::Log(pb::VertexLog { digest, stream, data }),
        Event::Transfer(progress) => pb::build_response::Payload::Progress(progress),
    };
    pb::BuildResponse { payload: Some(payload) }
}

fn status(status: Status) -> pb::VertexStatus {
    match status {
        Status::Started => pb::VertexStatus::Started,
        Status::Done => pb::VertexStatus::Done,
        Status::Cached => pb::VertexStatus::Cached,
        Status::Failed => pb::VertexStatus::Failed,
        Status::Canceled => pb::VertexStatus::Canceled,
    }
}

/// A cache record as a message.
pub fn record(record: cache::Record) -> pb::CacheRecord {
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    pb::CacheRecord {
        id: record.id,
        description: record.description,
        size_bytes: record.size_bytes,
        created_at: time(record.created),
        last_used_at: time(record.last_used),
        in_use: record.pending,
    }
}
