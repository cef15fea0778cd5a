//! `pier.builder.v1`: in and out.

use api::builder::v1 as pb;
use api::builder::v1::builder_service_server::BuilderService;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::build::{Builder, Built};
use crate::cache::Limits;
use crate::convert;
use crate::progress::Sink;

/// Messages that may wait for a slow client before the build waits too.
const BACKLOG: usize = 256;

/// The service.
#[derive(Debug, Clone)]
pub struct Service(Arc<Builder>);

impl Service {
    /// Serves a builder.
    pub fn new(builder: Arc<Builder>) -> Self {
        Self(builder)
    }
}

#[tonic::async_trait]
impl BuilderService for Service {
    type BuildStream = ReceiverStream<Result<pb::BuildResponse, Status>>;

    async fn build(&self, request: Request<pb::BuildRequest>) -> Result<Response<Self::BuildStream>, Status> {
        let request = convert::request(request.into_inner()).map_err(|error| rpc::status(&error))?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let builder = Arc::clone(&self.0);
        tokio::spawn(async move { relay(&builder, &request, &sender).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn disk_usage(&self, _: Request<pb::DiskUsageRequest>) -> Result<Response<pb::DiskUsageResponse>, Status> {
        let records = self.0.disk_usage().map_err(|error| rpc::status(&error))?;
        let total_bytes = records.iter().map(|record| record.size_bytes).sum();
        Ok(Response::new(pb::DiskUsageResponse {
            records: records.into_iter().map(convert::record).collect(),
            total_bytes,
        }))
    }

    async fn prune(&self, request: Request<pb::PruneRequest>) -> Result<Response<pb::PruneResponse>, Status> {
        let request = request.into_inner();
        let limits = Limits { keep_seconds: request.keep_seconds, keep_bytes: request.keep_bytes };
        let pruned = self.0.prune(limits, request.all).await;
        let (removed, reclaimed_bytes) = pruned.map_err(|error| rpc::status(&error))?;
        Ok(Response::new(pb::PruneResponse { removed, reclaimed_bytes }))
    }
}

type Sender = mpsc::Sender<Result<pb::BuildResponse, Status>>;

/// Runs the build and passes on what it tells. A client that goes away cancels it.
async fn relay(builder: &Builder, request: &crate::build::Request, sender: &Sender) {
    let (sink, mut events) = Sink::channel();
    let cancel = CancellationToken::new();
    let build = builder.build(request, &sink, &cancel);
    tokio::pin!(build);
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => {
                if sender.send(Ok(convert::event(event))).await.is_err() {
                    cancel.cancel();
                }
            }
            result = &mut build => break result,
            () = sender.closed(), if !cancel.is_cancelled() => cancel.cancel(),
        }
    };
    while let Ok(event) = events.try_recv() {
        drop(sender.send(Ok(convert::event(event))).await);
    }
    let last = result.map(|built| result_message(&built)).map_err(|error| rpc::status(&error));
    drop(sender.send(last).await);
}

/// The last message of a build.
pub fn result_message(built: &Built) -> pb::BuildResponse {
    let result = pb::BuildResult {
        image_id: built.image_id.clone(),
        manifest_digest: built.manifest_digest.clone(),
        names: built.names.clone(),
        executed: built.executed,
        cached: built.cached,
        warnings: built.warnings.clone(),
    };
    pb::BuildResponse { payload: Some(pb::build_response::Payload::Result(result)) }
}
