//! Commit: an image of what a container has written.
use super::{changes, get, name_of, status};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::Plan;
use crate::record::{self, Record, id_of};
use api::distribution::v1::{
    CommitSnapshotRequest, CreateImageRequest, CreateLeaseRequest, DeleteLeaseRequest, GetImageRequest, Image,
};
use api::engine::v1::CommitContainerRequest;
use api::supervisor::v1::{Container, ContainerStatus, PauseContainerRequest, UnpauseContainerRequest};
use oci::image::{History, ImageConfig};
use oci::{Digest, Reference};

/// Makes the image and returns its id. The container stays as it is; it is paused meanwhile when asked for.
pub async fn commit(engine: &Engine, request: CommitContainerRequest) -> Result<String, Error> {
    let container = get(engine, &request.id).await?;
    let record = record::required(&container)?;
    let name = match request.reference.as_str() {
        "" => String::new(),
        text => text.parse::<Reference>().map_err(|e| Error::invalid("image reference", text, e.why))?.to_string(),
    };
    // Before anything is paused or written.
    for change in &request.changes {
        changes::apply(&mut Default::default(), change)?;
    }
    let pause = request.pause && status(&container) == ContainerStatus::Running;
    let mut plan = Plan::new(format!("commit container {}", name_of(&container)));
    let id = id_of(&container).to_string();
    if pause {
        plan.step("pause", engine.clients().supervisor_pause(PauseContainerRequest { id: id.clone() })).await?;
    }
    let result = steps(engine, &mut plan, &container, &record, &request, name).await;
    if pause && let Err(error) = engine.clients().supervisor_unpause(UnpauseContainerRequest { id }).await {
        tracing::warn!(error = %error, "unpause after commit");
    }
    plan.finish(result).await
}

async fn steps(
    engine: &Engine,
    plan: &mut Plan,
    container: &Container,
    record: &Record,
    request: &CommitContainerRequest,
    name: String,
) -> Result<String, Error> {
    let clients = engine.clients();
    let lease = plan.step("lease", clients.lease_create(CreateLeaseRequest::default())).await?.id;
    let made = async {
        let wanted = GetImageRequest { reference: record.image_id.clone(), ..Default::default() };
        let base = plan.step("find image", clients.image_get(wanted)).await?.image.unwrap_or_default();
        let commit = CommitSnapshotRequest {
            key: id_of(container).to_string(),
            lease: lease.clone(),
            keep: true,
            ..Default::default()
        };
        let layer = plan.step("commit snapshot", clients.snapshot_commit(commit)).await?;
        let mut config = parse(&base)?;
        let mut layers = base.layers.clone();
        if layer.changed {
            layers.extend(layer.layer);
            config.rootfs.diff_ids.push(digest(&layer.diff_id)?);
        }
        describe(&mut config, record, request, !layer.changed)?;
        let config =
            serde_json::to_vec(&config).map_err(|source| Error::Encoding { what: "image configuration", source })?;
        let create = CreateImageRequest { reference: name, config, layers, lease: lease.clone(), ..Default::default() };
        let image = plan.step("create image", clients.image_create(create)).await?.image.unwrap_or_default();
        Ok(image.id)
    }
    .await;
    // A named image holds its content itself; without a name the lease runs out by itself.
    if (made.is_err() || !request.reference.is_empty())
        && let Err(error) = clients.lease_delete(DeleteLeaseRequest { id: lease }).await
    {
        tracing::warn!(error = %error, "lease of a commit");
    }
    made
}

fn parse(image: &Image) -> Result<ImageConfig, Error> {
    serde_json::from_slice(&image.config).map_err(|source| Error::Encoding { what: "image configuration", source })
}

fn digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|_| Error::invalid("diff id", text, "not a digest"))
}

// docker's rule: the new image starts as the container was configured to start; then the changes.
fn describe(
    image: &mut ImageConfig,
    record: &Record,
    request: &CommitContainerRequest,
    empty_layer: bool,
) -> Result<(), Error> {
    let own = record.config();
    let run = &mut image.config;
    if let Some(entrypoint) = own.entrypoint {
        run.entrypoint = entrypoint.args;
        run.cmd = Vec::new();
    }
    if !own.cmd.is_empty() {
        run.cmd = own.cmd;
    }
    for entry in own.env {
        if let Some((key, _)) = entry.split_once('=') {
            run.env.retain(|e| e.split_once('=').is_none_or(|(k, _)| k != key));
            run.env.push(entry);
        }
    }
    for (value, target) in [(own.user, &mut run.user), (own.working_dir, &mut run.working_dir)] {
        if !value.is_empty() {
            *target = value;
        }
    }
    run.labels.extend(own.labels);
    for change in &request.changes {
        changes::apply(run, change)?;
    }
    let now = jiff::Timestamp::now().to_string();
    let author = (!request.author.is_empty()).then(|| request.author.clone());
    image.history.push(History {
        created: Some(now.clone()),
        created_by: Some(run.cmd.join(" ")),
        author: author.clone(),
        comment: (!request.message.is_empty()).then(|| request.message.clone()),
        empty_layer,
    });
    image.created = Some(now);
    image.author = author.or(image.author.take());
    Ok(())
}
