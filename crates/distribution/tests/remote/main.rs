//! Pulling from registries that are honest, slow, broken or hostile.
#![allow(clippy::unwrap_used, missing_docs)]

mod fake;
mod referrers;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use distribution::progress::Reporter;
use distribution::pull::{Policy, Pull, Pulled, pull};
use distribution::registry::{Credentials, Options};
use distribution::{Error, Store};
use fake::{Answer, Ask, Fake, Image, ok, status};
use oci::{Descriptor, Digest};
use rpc::Coded as _;

fn wanted(fake: &Fake) -> Pull {
    Pull {
        reference: fake.reference("a/b:1"),
        platform: Some("linux/amd64".parse().unwrap()),
        registry: Options::default(),
        all_platforms: false,
        no_unpack: false,
        policy: Policy::Always,
        lease: None,
        referrers: false,
    }
}

async fn pull_into(root: &Path, wanted: &Pull) -> Result<Pulled, Error> {
    pull(&Store::open(root).unwrap(), wanted, &Reporter::silent()).await
}

/// After a failure: no image, no layer, no lease.
fn nothing_left(root: &Path) {
    let store = Store::open(root).unwrap();
    assert!(store.images().list().unwrap().is_empty());
    assert!(store.layers().list().unwrap().is_empty());
    assert!(store.leases().list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_registry() {
    let image = Image::of_size(1000, "amd64");
    let fake = Fake::start(move |ask| image.answer(ask)).await;
    let root = tempfile::tempdir().unwrap();
    let pulled = pull_into(root.path(), &wanted(&fake)).await.unwrap();
    assert!(pulled.changed);
    let store = Store::open(root.path()).unwrap();
    assert!(store.layers().has(&pulled.image.diff_ids[0]).unwrap());
    assert!(store.leases().list().unwrap().is_empty());
    let again = pull_into(root.path(), &wanted(&fake)).await.unwrap();
    assert!(!again.changed);
    let asked = fake.asked.lock().unwrap().iter().filter(|ask| ask.path.contains("/blobs/")).count();
    assert_eq!(asked, 2, "config and layer, once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_resumed() {
    let image = Image::of_size(1 << 20, "amd64");
    let (size, registry) = (image.layer.len(), image.clone());
    let fake = Fake::start(move |ask| {
        let from = ask.from().filter(|_| registry.is_layer(ask));
        let mut answer = registry.answer(ask);
        if registry.is_layer(ask) {
            answer.cut = Some(100_000);
        }
        if let Some(from) = from {
            answer.status = 206;
            answer.body = answer.body.split_off(from);
            answer = answer.with("Content-Range", format!("bytes {from}-{}/{size}", size - 1));
        }
        answer
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    pull_into(root.path(), &wanted(&fake)).await.unwrap();
    let sent = *fake.sent.lock().unwrap();
    assert!(sent < size * 11 / 10, "{sent} of {size} bytes were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_no_ranges_still_serves_a_resumed_pull() {
    let image = Image::of_size(1 << 20, "amd64");
    let registry = image.clone();
    let broken = AtomicUsize::new(0);
    let fake = Fake::start(move |ask| {
        let mut answer = registry.answer(ask);
        if registry.is_layer(ask) && broken.fetch_add(1, Ordering::SeqCst) == 0 {
            answer.cut = Some(300_000);
        }
        answer
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    pull_into(root.path(), &wanted(&fake)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_download_of_another_process_is_gone_on_with() {
    let image = Image::of_size(1 << 20, "amd64");
    let root = tempfile::tempdir().unwrap();
    let descriptor = Descriptor::of(oci::media_type::LAYER_GZIP, &image.layer);
    {
        let store = Store::open(root.path()).unwrap();
        let mut ingest = store.content().ingest(&descriptor, None).unwrap();
        std::io::Write::write_all(&mut ingest, &image.layer[..500_000]).unwrap();
    }
    let (size, registry) = (image.layer.len(), image.clone());
    let fake = Fake::start(move |ask| match ask.from() {
        Some(from) => Answer { status: 206, body: registry.layer[from..].to_vec(), ..Answer::default() }
            .with("Content-Range", format!("bytes {from}-{}/{size}", size - 1)),
        None => registry.answer(ask),
    })
    .await;
    let pulled = pull_into(root.path(), &wanted(&fake)).await.unwrap();
    assert!(*fake.sent.lock().unwrap() < size);
    assert!(Store::open(root.path()).unwrap().layers().has(&pulled.image.diff_ids[0]).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_is_named_and_not_kept() {
    for (case, reason) in [
        ("flip", "DIGEST_MISMATCH"),
        ("short", "SIZE_MISMATCH"),
        ("long", "SIZE_MISMATCH"),
        ("gone", "IMAGE_NOT_FOUND"),
    ] {
        let image = Image::of_size(10_000, "amd64");
        let digest = Digest::of(&image.layer);
        let registry = image.clone();
        let fake = Fake::start(move |ask| {
            let mut answer = registry.answer(ask);
            if registry.is_layer(ask) {
                match case {
                    "flip" => answer.body[5000] ^= 1,
                    "short" => answer.body.truncate(5000),
                    "long" => answer.body.extend([0; 10]),
                    _ => answer = status(404),
                }
            }
            answer
        })
        .await;
        let root = tempfile::tempdir().unwrap();
        let error = pull_into(root.path(), &wanted(&fake)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{case}: {error}");
        assert!(error.to_string().contains(digest.hex()), "{case}: {error}");
        nothing_left(root.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_always_ends_early_is_given_up_with_its_url() {
    let image = Image::of_size(10_000, "amd64");
    let registry = image.clone();
    let fake = Fake::start(move |ask| {
        let mut answer = registry.answer(ask);
        if registry.is_layer(ask) {
            answer.cut = Some(2000);
        }
        answer
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let error = pull_into(root.path(), &wanted(&fake)).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_UNREACHABLE");
    assert!(error.to_string().contains("/blobs/sha256:"), "{error}");
    nothing_left(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_no_gzip_is_refused_though_its_digest_is_right() {
    for body in [b"this is no gzip at all".to_vec(), vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]] {
        let image = Image::new(body, &Digest::of(b"x"), "amd64");
        let digest = Digest::of(&image.layer);
        let fake = Fake::start(move |ask| image.answer(ask)).await;
        let root = tempfile::tempdir().unwrap();
        let error = pull_into(root.path(), &wanted(&fake)).await.unwrap_err();
        assert!(matches!(error, Error::LayerCorrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(digest.as_str()));
        nothing_left(root.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let fake = Fake::start(|_| status(500)).await;
    let root = tempfile::tempdir().unwrap();
    let mut pull = wanted(&fake);
    pull.reference = "127.0.0.1:1/x:1".parse().unwrap();
    let error = pull_into(root.path(), &pull).await.unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_UNREACHABLE");
    assert!(error.to_string().contains("127.0.0.1:1"));
    assert!(error.hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again() {
    let image = Image::of_size(100, "amd64");
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |ask| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => status(429).with("Retry-After", 0),
        1 => status(503),
        _ => image.answer(ask),
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    pull_into(root.path(), &wanted(&fake)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_manifests_are_refused_before_they_are_read() {
    let fake = Fake::start(|_| Answer { length: Some(1 << 40), ..ok(oci::media_type::MANIFEST, b"{}") }).await;
    let root = tempfile::tempdir().unwrap();
    let error = pull_into(root.path(), &wanted(&fake)).await.unwrap_err();
    assert_eq!(error.reason(), "MANIFEST_INVALID", "{error}");
}

fn bearer(ask: &Ask, image: &Image, realm: &str) -> Answer {
    if ask.path.starts_with("/token") {
        // user:secret
        return match ask.headers.get("authorization").map(String::as_str) {
            Some("Basic dXNlcjpzZWNyZXQ=") => ok("application/json", br#"{"token":"good","expires_in":60}"#),
            _ => status(401),
        };
    }
    match ask.headers.get("authorization").map(String::as_str) {
        Some("Bearer good") => image.answer(ask),
        _ => status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"fake\"")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_with_the_credentials_of_the_file() {
    let image = Image::of_size(100, "amd64");
    let fake = Fake::start(move |ask| bearer(ask, &image, "/token")).await;
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("config.json");
    let auth = r#"{"auths":{"HOST":{"auth":"dXNlcjpzZWNyZXQ="}}}"#.replace("HOST", &fake.address.to_string());
    std::fs::write(&file, auth).unwrap();
    let mut pull = wanted(&fake);
    pull.registry.auth_file = Some(file);
    pull_into(root.path(), &pull).await.unwrap();
    let token = fake.asked.lock().unwrap().iter().find(|ask| ask.path.starts_with("/token")).unwrap().clone();
    assert!(
        token.path.contains("service=fake") && token.path.contains("scope=repository%3Aa%2Fb%3Apull"),
        "{}",
        token.path
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_missing_credentials_are_told_apart_from_a_missing_image() {
    let image = Image::of_size(100, "amd64");
    let fake = Fake::start(move |ask| bearer(ask, &image, "/token")).await;
    let root = tempfile::tempdir().unwrap();
    for credentials in [None, Some(Credentials::Password { username: "user".into(), password: "wrong".into() })] {
        let mut pull = wanted(&fake);
        pull.registry.credentials = credentials;
        let error = pull_into(root.path(), &pull).await.unwrap_err();
        assert_eq!(error.reason(), "UNAUTHORIZED", "{error}");
        assert!(!format!("{error:?}").contains("wrong"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_does_not_take_the_token_along() {
    let image = Image::of_size(100, "amd64");
    let elsewhere = image.clone();
    let storage = Fake::start(move |ask| elsewhere.answer(ask)).await;
    let target = storage.address;
    let fake = Fake::start(move |ask| {
        let answer = bearer(ask, &image, "/token");
        if answer.status == 200 && image.is_layer(ask) {
            return status(307).with("Location", format!("http://{target}{}", ask.path));
        }
        answer
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let mut pull = wanted(&fake);
    pull.registry.credentials = Some(Credentials::Password { username: "user".into(), password: "secret".into() });
    pull_into(root.path(), &pull).await.unwrap();
    let asked = storage.asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|ask| !ask.headers.contains_key("authorization")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_found_in_a_nested_index() {
    let (arm, amd) = (Image::of_size(100, "arm64"), Image::of_size(100, "amd64"));
    let entry = |image: &Image, platform: serde_json::Value| {
        let mut entry = serde_json::to_value(Descriptor::of(oci::media_type::MANIFEST, &image.manifest)).unwrap();
        entry["platform"] = platform;
        entry
    };
    let index = |entries: Vec<serde_json::Value>| {
        serde_json::to_vec(
            &serde_json::json!({"schemaVersion": 2, "mediaType": oci::media_type::INDEX, "manifests": entries}),
        )
        .unwrap()
    };
    let inner = index(vec![entry(&amd, serde_json::json!({"os": "linux", "architecture": "amd64"}))]);
    let arm_entry = entry(&arm, serde_json::json!({"os": "linux", "architecture": "arm64", "variant": "v8"}));
    let nested = serde_json::to_value(Descriptor::of(oci::media_type::INDEX, &inner)).unwrap();
    let outer = index(vec![arm_entry, nested]);
    let expected = Digest::of(&amd.manifest);
    let top = Digest::of(&outer);
    let fake = Fake::start(move |ask| {
        let name = ask.path.rsplit('/').next().unwrap_or_default().to_owned();
        if name == "1" {
            return ok(oci::media_type::INDEX, &outer);
        }
        if name == Digest::of(&inner).as_str() {
            return ok(oci::media_type::INDEX, &inner);
        }
        let image = if [&amd.manifest, &amd.config, &amd.layer].iter().any(|part| name == Digest::of(part).as_str()) {
            &amd
        } else {
            &arm
        };
        image.answer(ask)
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let pulled = pull_into(root.path(), &wanted(&fake)).await.unwrap();
    assert_eq!((pulled.digest, pulled.image.manifest.digest), (top, expected));
    let mut none = wanted(&fake);
    none.platform = Some("linux/s390x".parse().unwrap());
    let error = pull_into(root.path(), &none).await.unwrap_err();
    assert_eq!(error.reason(), "PLATFORM_MISSING");
    assert!(error.to_string().contains("linux/arm64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_the_same_image_at_once_download_it_once() {
    let image = Image::of_size(1 << 20, "amd64");
    let registry = image.clone();
    let fake = Fake::start(move |ask| registry.answer(ask)).await;
    let root = tempfile::tempdir().unwrap();
    let wanted = wanted(&fake);
    let pulls = (0..4).map(|_| pull_into(root.path(), &wanted));
    for result in futures::future::join_all(pulls).await {
        result.unwrap();
    }
    let layers = fake.asked.lock().unwrap().iter().filter(|ask| image.is_layer(ask)).count();
    assert_eq!(layers, 1);
}
