//! Manifests: kept byte for byte, by tag and by digest.

use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, StatusCode};
use oci::manifest::Document;
use oci::{Descriptor, Digest};

use super::catalog::{Catalog, NewManifest, Taken, default_type};
use super::reply::{self, CONTENT_DIGEST, Refusal, Reply, With as _};
use super::route::{Name, Pointer, content_length, tag};
use super::{At, Incomer, sessions, upload};
use crate::Store;
use crate::registry::MANIFEST_MAX;

/// Most tags of one push.
const TAGS_MAX: usize = 64;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

impl At {
    /// GET and HEAD.
    pub(super) async fn manifest(&self, name: Name, pointer: Pointer, body: bool) -> Result<Reply, Refusal> {
        if let Some(proxy) = &self.shared.proxy {
            proxy.refresh(&self.shared.store, &name, &pointer).await?;
        }
        let wanted = pointer.clone();
        let found = self.call(move |store| read(store, &name.key, &wanted, body)).await?;
        let Some((digest, media_type, size, bytes)) = found else {
            return Err(match pointer {
                Pointer::Tag(tag) => Refusal::not_found("MANIFEST_UNKNOWN", format_args!("the tag {tag}")),
                Pointer::Digest(digest) => {
                    Refusal::not_found("MANIFEST_UNKNOWN", format_args!("the manifest {digest}"))
                }
            });
        };
        self.note_use(&digest).await?;
        let reply = match body {
            true => reply::sized(StatusCode::OK, bytes.into()),
            false => reply::empty(StatusCode::OK).with(CONTENT_LENGTH, &size.to_string()),
        };
        Ok(reply
            .with(CONTENT_TYPE, &media_type)
            .with(ETAG, &format!("\"{digest}\""))
            .with(CONTENT_DIGEST, digest.as_str()))
    }

    /// PUT.
    pub(super) async fn put_manifest(&self, name: Name, pointer: Pointer, request: Incomer) -> Result<Reply, Refusal> {
        let tags = match &pointer {
            Pointer::Tag(tag) => vec![tag.clone()],
            Pointer::Digest(_) => self.query.all("tag").map(tag).collect::<Result<Vec<_>, _>>()?,
        };
        if tags.len() > TAGS_MAX {
            let message = format!("{} tags at once, at most {TAGS_MAX} are taken", tags.len());
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "MANIFEST_INVALID", message));
        }
        let media_type = media_type(&request);
        let bytes = limited(request).await?;
        let new = describe(&bytes, &media_type, &pointer)?;
        let (digest, subject) = (new.descriptor.digest.clone(), new.subject().cloned());
        let (key, pushed) = (name.key.clone(), tags.clone());
        let taken = self.call(move |store| keep(store, &key, &new, &bytes, &pushed, true)).await?;
        if let Taken::Lacks(digest) = taken {
            let message = format!("{digest}, which the manifest names, is not in this repository");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
        }
        let mut reply = reply::empty(StatusCode::CREATED)
            .with(LOCATION, &format!("/v2/{}/manifests/{digest}", name.wire))
            .with(CONTENT_DIGEST, digest.as_str());
        if let Some(subject) = subject {
            reply = reply.with(SUBJECT, subject.as_str());
        }
        if matches!(pointer, Pointer::Digest(_)) {
            reply = tags.iter().fold(reply, |reply, tag| reply.with(TAG, tag));
        }
        Ok(reply)
    }

    /// DELETE: a tag alone, or a manifest with its tags.
    pub(super) async fn delete_manifest(&self, name: Name, pointer: Pointer) -> Result<Reply, Refusal> {
        let removed = self.call(move |store| match &pointer {
            Pointer::Tag(tag) => Catalog(store).remove_tag(&name.key, tag),
            Pointer::Digest(digest) => Catalog(store).remove_manifest(&name.key, digest),
        });
        match removed.await? {
            true => Ok(reply::empty(StatusCode::ACCEPTED)),
            false => Err(Refusal::not_found("MANIFEST_UNKNOWN", "the manifest")),
        }
    }
}

type Found = (Digest, String, u64, Vec<u8>);

/// What a tag or digest stands for. Damaged bytes are not sent: reading verifies them.
fn read(store: &Store, repository: &str, pointer: &Pointer, body: bool) -> crate::Result<Option<Found>> {
    let catalog = Catalog(store);
    let digest = match pointer {
        Pointer::Digest(digest) => digest.clone(),
        Pointer::Tag(tag) => match catalog.tag(repository, tag)? {
            Some(tag) => tag.digest,
            None => return Ok(None),
        },
    };
    let Some(media_type) = catalog.manifest(repository, &digest)? else { return Ok(None) };
    let Some(size) = store.content().has(&digest)? else { return Ok(None) };
    let bytes = if body { store.content().read(&digest, MANIFEST_MAX)? } else { Vec::new() };
    Ok(Some((digest, media_type, size, bytes)))
}

/// Keeps a manifest's bytes and rows. With `complete`, only when all that it names is there.
pub(super) fn keep(
    store: &Store,
    repository: &str,
    new: &NewManifest,
    bytes: &[u8],
    tags: &[String],
    complete: bool,
) -> crate::Result<Taken> {
    let staged = sessions::stage(store, bytes)?;
    let taken = Catalog(store).add_manifest(repository, new, &staged, tags, complete);
    if !matches!(taken, Ok(Taken::Yes)) {
        crate::store::empty(&staged);
    }
    taken
}

/// The type of what is pushed, without parameters.
fn media_type(request: &Incomer) -> String {
    let text = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_owned()
}

/// Reads a body that has at most as many bytes as a manifest may have.
async fn limited(request: Incomer) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let message = format!("a manifest has at most {MANIFEST_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    };
    if content_length(request.headers()).is_some_and(|length| length > MANIFEST_MAX) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut body = upload::body(request);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Refusal::bad("MANIFEST_INVALID", "the connection broke"))?;
        if (bytes.len() + chunk.len()) as u64 > MANIFEST_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads and checks what was pushed: it is of its type, and its digest is the one of the URL.
pub(super) fn describe(bytes: &[u8], media_type: &str, pointer: &Pointer) -> Result<NewManifest, Refusal> {
    let digest = match pointer {
        Pointer::Tag(_) => Digest::of(bytes),
        Pointer::Digest(expected) => {
            let actual = expected.like(bytes);
            if actual != *expected {
                return Err(Refusal::bad(
                    "DIGEST_INVALID",
                    format!("the manifest has digest {actual}, not {expected}"),
                ));
            }
            actual
        }
    };
    let document = Document::parse(bytes, media_type).map_err(|e| {
        let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}")).unwrap_or_default();
        Refusal::bad("MANIFEST_INVALID", format!("{e}{cause}"))
    })?;
    let own = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let own = own.as_ref().and_then(|value| value.get("mediaType")?.as_str());
    let known = matches!(media_type, "" | "application/json" | "application/octet-stream");
    let kept = if known { own.unwrap_or(default_type(&document)) } else { media_type };
    Ok(NewManifest { descriptor: Descriptor::new(kept, digest, bytes.len() as u64), document })
}
