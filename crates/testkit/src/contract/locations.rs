//! `pier.distribution.v1`, the calls on locations, as far as they need no registry.
use crate::refused;
use anyhow::{Context, Result, ensure};
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use api::distribution::v1::*;
use api::types::v1::{Descriptor, Platform};
use rpc::Code;
use std::path::Path;
use tonic::transport::Channel;

type Client = DistributionServiceClient<Channel>;

/// The result of a stream of progress.
macro_rules! result {
    ($call:expr, $payload:path) => {{
        let mut stream = $call.await?.into_inner();
        let mut result = None;
        while let Some(message) = stream.message().await? {
            if let Some($payload(it)) = message.payload {
                result = Some(it);
            }
        }
        result.context("the stream ended without a result")?
    }};
}

fn origin(location: impl Into<String>) -> Option<Origin> {
    Some(Origin { location: location.into(), registry: None })
}

fn target(location: impl Into<String>) -> Option<Target> {
    Some(Target { location: location.into(), ..Default::default() })
}

/// Copies, indexes, artifacts, signatures, and images made of others, in layouts below `dir`. The image comes from the tar at
/// `rootfs`; `<key>.key`, without a passphrase, and `<key>.pub` are a pair of keys.
pub async fn locations(channel: Channel, rootfs: &Path, dir: &Path, key: &Path) -> Result<()> {
    let mut client = DistributionServiceClient::new(channel).max_decoding_message_size(16 << 20);
    std::fs::create_dir_all(dir)?;
    let layout = format!("oci:{}", dir.join("layout").display());
    for (arch, tag) in [("amd64", "one"), ("arm64", "two")] {
        let platform = Platform { os: "linux".into(), architecture: arch.into(), ..Default::default() };
        let import = ImportRequest {
            path: rootfs.display().to_string(),
            reference: format!("contract/{tag}:1"),
            platform: Some(platform),
            ..Default::default()
        };
        result!(client.import(import), import_response::Payload::Result);
        let copy = CopyRequest {
            source: format!("store:contract/{tag}:1"),
            destination: format!("{layout}:{tag}"),
            all_platforms: true,
            preserve_digests: true,
            ..Default::default()
        };
        result!(client.copy(copy), copy_response::Payload::Result);
    }
    index(&mut client, &layout).await?;
    artifacts(&mut client, &layout, dir).await?;
    made(&mut client, &layout, dir).await?;
    sync(&mut client, &layout, dir).await?;
    signatures(&mut client, &layout, key).await?;
    for tag in ["one", "two", "changed"] {
        let reference = format!("contract/{tag}:1");
        client.remove_image(RemoveImageRequest { reference, force: false, platform: None }).await?;
    }
    client.collect_garbage(CollectGarbageRequest::default()).await?;
    Ok(std::fs::remove_dir_all(dir)?)
}

async fn look(client: &mut Client, location: String, platform: &str) -> Result<InspectLocationResponse> {
    let platform = Platform { os: "linux".into(), architecture: platform.into(), ..Default::default() };
    let request = InspectLocationRequest { origin: origin(location), platform: Some(platform), ..Default::default() };
    Ok(client.inspect_location(request).await?.into_inner())
}

async fn index(client: &mut Client, layout: &str) -> Result<()> {
    let name = "contract/index:1".to_owned();
    let unknown = EditIndexRequest { name: name.clone(), remove: vec!["x".into()], ..Default::default() };
    refused(client.edit_index(unknown).await, Code::NotFound, "INDEX_NOT_FOUND")?;
    let add = vec![origin(format!("{layout}:one")), origin(format!("{layout}:two"))];
    let begin = EditIndexRequest {
        name: name.clone(),
        create: true,
        add: add.into_iter().flatten().collect(),
        annotate: vec![IndexAnnotation {
            image: format!("{layout}:two"),
            platform: Some(Platform { variant: "v8".into(), ..Default::default() }),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        }],
        ..Default::default()
    };
    let made = client.edit_index(begin.clone()).await?.into_inner().index.context("no index")?;
    ensure!(made.manifests.len() == 2, "{made:?}");
    refused(client.edit_index(begin).await, Code::AlreadyExists, "INDEX_EXISTS")?;
    let listed = client.list_indexes(ListIndexesRequest {}).await?.into_inner().indexes;
    ensure!(listed.contains(&made), "{listed:?}");
    let push = PushIndexRequest { name: name.clone(), target: target(format!("{layout}:index")), ..Default::default() };
    let pushed = result!(client.push_index(push), push_index_response::Payload::Result);
    let arm = look(client, format!("{layout}:index"), "arm64").await?;
    ensure!(arm.digest == pushed.digest, "{arm:?}");
    let two = look(client, format!("{layout}:two"), "arm64").await?;
    ensure!(two.digest == arm.manifest.map(|m| m.digest).unwrap_or_default(), "another manifest");
    ensure!(two.raw == two.raw_manifest && !two.config.is_empty(), "the manifest is not what the name stands for");
    client.delete_index(DeleteIndexRequest { name: name.clone() }).await?;
    refused(client.delete_index(DeleteIndexRequest { name }).await, Code::NotFound, "INDEX_NOT_FOUND")
}

async fn artifacts(client: &mut Client, layout: &str, dir: &Path) -> Result<()> {
    let file = dir.join("file.txt");
    std::fs::write(&file, b"text")?;
    let push = PushArtifactRequest {
        target: target(format!("{layout}:one")),
        files: vec![ArtifactFile { path: file.display().to_string(), media_type: "text/plain".into() }],
        artifact_type: "contract/x".into(),
        attach: true,
        ..Default::default()
    };
    let pushed: Descriptor = result!(client.push_artifact(push), push_artifact_response::Payload::Result);
    let ask = ListReferrersRequest { origin: origin(format!("{layout}:one")), ..Default::default() };
    let found = client.list_referrers(ask.clone()).await?.into_inner();
    let digests: Vec<_> = found.referrers.iter().filter_map(|it| Some(&it.descriptor.as_ref()?.digest)).collect();
    ensure!(digests == [&pushed.digest], "{found:?}");
    let other = ListReferrersRequest { artifact_type: "contract/y".into(), ..ask };
    ensure!(client.list_referrers(other).await?.into_inner().referrers.is_empty(), "of another type");
    let into = dir.join("pulled").display().to_string();
    let pull =
        PullArtifactRequest { origin: origin(format!("{layout}@{}", pushed.digest)), path: into, replace: false };
    let pulled = result!(client.pull_artifact(pull.clone()), pull_artifact_response::Payload::Result);
    ensure!(pulled.files.len() == 1 && std::fs::read(&pulled.files[0])? == b"text", "{pulled:?}");
    let mut again = client.pull_artifact(pull).await?.into_inner();
    refused(again.message().await, Code::AlreadyExists, "FILE_EXISTS")
}

async fn made(client: &mut Client, layout: &str, dir: &Path) -> Result<()> {
    let mutate = MutateImageRequest {
        origin: origin("store:contract/one:1"),
        target: target("store:contract/changed:1"),
        changes: vec!["ENV C=d".into()],
        annotations: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    result!(client.mutate_image(mutate), mutate_image_response::Payload::Result);
    let same = DiffImagesRequest { old: "contract/one:1".into(), new: "contract/changed:1".into() };
    ensure!(client.diff_images(same).await?.into_inner().changes.is_empty(), "only the config changed");
    let flatten = FlattenImageRequest {
        origin: origin("store:contract/changed:1"),
        target: target(format!("{layout}:flat")),
        compression: "zstd".into(),
        ..Default::default()
    };
    result!(client.flatten_image(flatten), flatten_image_response::Payload::Result);
    let config = look(client, format!("{layout}:flat"), "amd64").await?.config;
    ensure!(String::from_utf8_lossy(&config).contains("C=d"), "the config is lost");
    let rebase = RebaseImageRequest {
        origin: origin("store:contract/changed:1"),
        target: target(format!("oci:{}:x", dir.join("rebased").display())),
        old_base: origin("store:contract/one:1"),
        new_base: origin(format!("{layout}:flat")),
        ..Default::default()
    };
    result!(client.rebase_image(rebase.clone()), rebase_image_response::Payload::Result);
    let wrong = RebaseImageRequest { old_base: origin(format!("{layout}:flat")), ..rebase };
    let mut failed = client.rebase_image(wrong).await?.into_inner();
    refused(failed.message().await, Code::InvalidArgument, "MANIFEST_INVALID")?;
    let relative = FlattenImageRequest { origin: origin("oci:relative"), ..Default::default() };
    let mut failed = client.flatten_image(relative).await?.into_inner();
    refused(failed.message().await, Code::InvalidArgument, "NAME_INVALID")
}

async fn sync(client: &mut Client, layout: &str, dir: &Path) -> Result<()> {
    let wanted = SyncRequest {
        sources: vec![layout.to_owned()],
        destination: format!("dir:{}", dir.join("tree").display()),
        all_platforms: true,
        ..Default::default()
    };
    for state in ["would_copy", "copied", "up_to_date"] {
        let request = SyncRequest { dry_run: state == "would_copy", ..wanted.clone() };
        let mut stream = client.sync(request).await?.into_inner();
        let mut states = Vec::new();
        while let Some(message) = stream.message().await? {
            if let Some(sync_response::Payload::Item(item)) = message.payload {
                states.push(item.state);
            }
        }
        ensure!(states == vec![state; 4], "{states:?} instead of {state}");
    }
    Ok(())
}

async fn signatures(client: &mut Client, layout: &str, key: &Path) -> Result<()> {
    let location = format!("{layout}:two");
    let pem = std::fs::read_to_string(key.with_extension("pub"))?;
    let keys = vec![PublicKey { pem, name: "ours".into() }];
    let verify = VerifyImageRequest { location: location.clone(), keys: keys.clone(), ..Default::default() };
    refused(client.verify_image(verify.clone()).await, Code::PermissionDenied, "SIGNATURE_INVALID")?;
    let private_key = std::fs::read_to_string(key.with_extension("key"))?;
    let nameless = SignImageRequest { location: location.clone(), private_key, ..Default::default() };
    refused(client.sign_image(nameless.clone()).await, Code::InvalidArgument, "NAME_INVALID")?;
    let locked = SignImageRequest { passphrase: "wrong".into(), ..nameless.clone() };
    refused(client.sign_image(locked).await, Code::InvalidArgument, "KEY_INVALID")?;
    let relative = SignImageRequest { location: "oci:relative:x".into(), ..nameless.clone() };
    refused(client.sign_image(relative).await, Code::InvalidArgument, "NAME_INVALID")?;
    let identity = "example.com/contract/two:1".to_owned();
    let signed = client.sign_image(SignImageRequest { identity: identity.clone(), ..nameless }).await?.into_inner();
    let two = look(client, location.clone(), "arm64").await?;
    ensure!(signed.signed == [two.digest.clone()], "{signed:?}");
    let verify = VerifyImageRequest { identity: identity.clone(), ..verify };
    let found = client.verify_image(verify.clone()).await?.into_inner();
    ensure!((&found.digest, &found.identity, found.key.as_str()) == (&two.digest, &identity, "ours"), "{found:?}");
    let other = VerifyImageRequest { identity: "example.com/contract/other".into(), ..verify };
    refused(client.verify_image(other).await, Code::PermissionDenied, "SIGNATURE_INVALID")?;
    let none = ListAttestationsRequest { location, keys, ..Default::default() };
    let none = client.list_attestations(none).await?.into_inner().attestations;
    ensure!(none.is_empty(), "nobody stated anything: {none:?}");
    Ok(())
}
