//! A registry that keeps no list of referrers and deletes by digest only, as Debian's: what clients have to do for it.
use std::collections::BTreeMap;
use std::sync::Mutex;

use distribution::registry::{Options, RawManifest, Registry};
use oci::{Descriptor, Digest, media_type};

use crate::fake::{Answer, Ask, Fake, ok, status};

type Manifests = Mutex<BTreeMap<String, (String, Vec<u8>)>>;

fn registry(ask: &Ask, all: &Manifests) -> Answer {
    let mut all = all.lock().unwrap();
    let name = ask.path.rsplit('/').next().unwrap_or_default().to_owned();
    if ask.path.contains("/_catalog") {
        return match ask.path.contains("last=") {
            false => ok("application/json", br#"{"repositories":["a","b"]}"#)
                .with("Link", "</v2/_catalog?last=b>; rel=\"next\""),
            true => ok("application/json", br#"{"repositories":["c"]}"#),
        };
    }
    if !ask.path.contains("/manifests/") {
        return status(404);
    }
    match ask.method.as_str() {
        "PUT" => {
            let digest = Digest::of(&ask.body).to_string();
            let manifest = (ask.headers["content-type"].clone(), ask.body.clone());
            all.insert(name, manifest.clone());
            all.insert(digest.clone(), manifest);
            status(201).with("Docker-Content-Digest", digest)
        }
        "DELETE" if !name.contains(':') => status(400),
        "DELETE" => match all.remove(&name) {
            Some(gone) => {
                all.retain(|_, manifest| *manifest != gone);
                status(202)
            }
            None => status(404),
        },
        _ => match all.get(&name) {
            Some((kind, bytes)) => ok(kind, bytes).with("Docker-Content-Digest", Digest::of(bytes)),
            None => status(404),
        },
    }
}

fn about(subject: &RawManifest, kind: &str) -> RawManifest {
    let subject = Descriptor::new(&subject.media_type, subject.digest.clone(), subject.bytes.len() as u64);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": kind,
        "config": Descriptor::of("application/vnd.oci.empty.v1+json", b"{}"), "layers": [], "subject": subject,
    });
    RawManifest::of(media_type::MANIFEST, manifest.to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_list_is_kept_up_to_date() {
    let all = Manifests::default();
    let fake = Fake::start(move |ask| registry(ask, &all)).await;
    let registry = Registry::open(&fake.address.to_string(), &Options::default()).await.unwrap();
    let image = RawManifest::of(media_type::MANIFEST, br#"{"schemaVersion":2}"#.to_vec());
    registry.put_manifest("a", "1", &image).await.unwrap();
    assert!(registry.referrers("a", &image.digest, None).await.unwrap().is_empty());
    let (one, two) = (about(&image, "text/one"), about(&image, "text/two"));
    for note in [&one, &two, &one] {
        registry.put_manifest("a", note.digest.as_str(), note).await.unwrap();
    }
    let digests = async |kind| -> Vec<Digest> {
        let found = registry.referrers("a", &image.digest, kind).await.unwrap();
        found.into_iter().map(|entry| entry.digest).collect()
    };
    assert_eq!(digests(None).await, [one.digest.clone(), two.digest.clone()]);
    assert_eq!(digests(Some("text/two")).await, std::slice::from_ref(&two.digest));
    registry.delete_manifest("a", &one.digest).await.unwrap();
    assert_eq!(digests(None).await, std::slice::from_ref(&two.digest));
    assert!(registry.manifest("a", one.digest.as_str()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_goes_alone_where_only_digests_are_deleted() {
    let all = Manifests::default();
    let fake = Fake::start(move |ask| registry(ask, &all)).await;
    let registry = Registry::open(&fake.address.to_string(), &Options::default()).await.unwrap();
    let image = RawManifest::of(media_type::MANIFEST, br#"{"schemaVersion":2}"#.to_vec());
    for tag in ["1", "2"] {
        registry.put_manifest("a", tag, &image).await.unwrap();
    }
    registry.delete_tag("a", "1").await.unwrap();
    assert_eq!(registry.manifest_digest("a", "1").await.unwrap(), None);
    assert_eq!(registry.manifest_digest("a", "2").await.unwrap(), Some(image.digest.to_string()));
    let error = registry.delete_tag("a", "1").await.unwrap_err();
    assert!(error.to_string().contains("was not found"), "{error}");
    assert_eq!(registry.catalog().await.unwrap(), ["a", "b", "c"]);
}
