//! Images: what registries and archives say.
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use distribution::registry::RawManifest;
use oci::manifest::Document;
use oci::{Digest, Reference, media_type};

const BLOCK: usize = 512;

/// An archive is unpacked, or it is not; nothing beside its directory changes, and what is written twice is the same.
pub fn layer(data: &[u8]) {
    let archive = with_checksums(data);
    let around = tempfile::Builder::new().prefix("pier-fuzz-").tempdir().expect("temporary directory");
    let outside = around.path().join("outside");
    std::fs::write(&outside, b"untouched").expect("temporary file");
    let fill = |name: &str| {
        let dir = around.path().join(name);
        std::fs::create_dir(&dir).expect("temporary directory");
        let done = distribution::layer::unpack_into(&archive[..], "", &dir).map(|info| info.diff_id);
        (done.ok(), list(&dir))
    };
    let (one, two) = (fill("one"), fill("two"));
    assert_eq!(one, two, "unpacked twice is another one");
    assert_eq!(std::fs::read(&outside).expect("what lies outside"), b"untouched");
    let names = std::fs::read_dir(around.path()).expect("temporary directory").count();
    assert_eq!(names, 3, "something was written outside");
    assert_eq!(std::fs::metadata(&outside).expect("what lies outside").nlink(), 1, "linked from inside");
}

/// Plain archives get right checksums, so that what is behind them is looked at.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for block in archive.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// Every name below a directory, with its mode, size and number of links.
fn list(dir: &Path) -> Vec<(std::path::PathBuf, u32, u64)> {
    let (mut all, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory of the layer").flatten() {
            let path = entry.path();
            let meta = std::fs::symlink_metadata(&path).expect("an entry of the layer");
            if meta.is_dir() {
                open.push(path.clone());
            }
            all.push((path.strip_prefix(dir).expect("below").to_owned(), meta.mode(), meta.nlink()));
        }
    }
    all.sort();
    all
}

/// A manifest that is read can be written and read again; limits hold.
pub fn manifest(data: &[u8]) {
    for kind in ["", media_type::MANIFEST, media_type::INDEX, "application/vnd.docker.distribution.manifest.v2+json"] {
        let raw = RawManifest { bytes: data.to_vec(), media_type: kind.into(), digest: Digest::of(data) };
        let Ok(document) = distribution::transport::copy::parse(&raw, "fuzz") else { continue };
        let described = distribution::transport::copy::describe(&raw);
        assert_eq!((described.size, &described.digest), (data.len() as u64, &raw.digest));
        let text = match &document {
            Document::Manifest(manifest) => serde_json::to_vec(manifest),
            Document::Index(index) => serde_json::to_vec(index),
        };
        let again = Document::parse(&text.expect("a manifest can be written"), &described.media_type);
        assert_eq!(again.expect("what was written can be read"), document);
    }
    if let Ok(config) = serde_json::from_slice::<oci::ImageConfig>(data) {
        let text = serde_json::to_vec(&config).expect("a config can be written");
        let again: oci::ImageConfig = serde_json::from_slice(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).expect("a config can be written"), text);
    }
}

/// A reference is its own text again, and names no path elsewhere.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    let again = reference.to_string().parse::<Reference>().expect("what was written can be read");
    assert_eq!(again, reference);
    assert_eq!(reference.familiar().parse::<Reference>().expect("the familiar form can be read"), reference);
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '%', '?', '#', ' ']);
    assert!(reference.repository().split('/').all(plain), "{reference}");
    let _ = text.parse::<distribution::transport::Location>();
}

/// A challenge is read or not; what is read was in it.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for realm in distribution::registry::realms(text) {
        assert!(realm.len() <= text.len());
        let quoted = format!("Bearer realm=\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\""));
        assert_eq!(distribution::registry::realms(&quoted), [realm]);
    }
}
