//! Sources: images, and directories of this host.

use bollard_buildkit_proto::pb;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;

use super::Worker;
use crate::error::Error;
use crate::fs::ignore::Ignore;
use crate::layer::{Directory, Output};
use crate::progress::Sink;
use crate::solve::{Context, Key, KeyWriter, Op};

/// A source operation.
pub(super) struct Source {
    worker: Arc<Worker>,
    what: What,
}

enum What {
    Image { reference: String, platform: String },
    Directory(Arc<Directory>),
}

impl Source {
    pub(super) fn new(worker: Arc<Worker>, op: &pb::SourceOp, platform: Option<&pb::Platform>) -> Result<Self, Error> {
        let what = match op.identifier.split_once("://") {
            Some(("docker-image", reference)) => {
                let platform = platform.map(|platform| {
                    oci::Platform::new(&platform.os, &platform.architecture, &platform.variant).to_string()
                });
                What::Image { reference: reference.to_owned(), platform: platform.unwrap_or_default() }
            }
            Some(("local", name)) => What::Directory(directory(&worker, op, name)?),
            _ => return Err(Error::Unsupported(format!("the source {}", op.identifier))),
        };
        Ok(Self { worker, what })
    }

    async fn resolve(&self, sink: &Sink) -> Result<Output, Error> {
        let (reference, platform) = match &self.what {
            What::Directory(directory) => return Ok(Output::Directory(Arc::clone(directory))),
            What::Image { reference, platform } => (reference, platform),
        };
        let store = &self.worker.store;
        // By its digest, wherever the name points by now.
        let by_digest = match reference.split_once('@') {
            Some((_, digest)) => store.image(digest, platform).await.ok(),
            None => None,
        };
        let image = match by_digest {
            Some(image) => image,
            None => store.pull(reference, platform, "missing", &self.worker.build, sink).await?,
        };
        self.worker.trust(&image.chain);
        Ok(Output::Layers(image.chain))
    }
}

fn directory(worker: &Worker, op: &pb::SourceOp, name: &str) -> Result<Arc<Directory>, Error> {
    let found = worker.directories.get(name).ok_or_else(|| match name {
        "context" => Error::Request("the build needs files, but there is no build context".into()),
        _ => Error::Request(format!("there is no context named {name}")),
    })?;
    let Some(patterns) = op.attrs.get("local.excludepatterns") else { return Ok(Arc::clone(found)) };
    let patterns: Vec<String> = serde_json::from_str(patterns)
        .map_err(|error| Error::Definition(format!("{}: local.excludepatterns: {error}", op.identifier)))?;
    let ignore = Ignore::new(&patterns).map_err(|error| Error::Request(format!(".dockerignore: {error}")))?;
    Ok(Arc::new(Directory { ignore, ..found.as_ref().clone() }))
}

impl Op<Output> for Source {
    fn cacheable(&self) -> bool {
        false
    }

    fn key<'a>(&'a self, _: &'a [Output]) -> BoxFuture<'a, Result<Key, Error>> {
        async { Ok(KeyWriter::new("source").finish()) }.boxed()
    }

    fn run<'a>(&'a self, _: &'a [Output], context: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, Error>> {
        async move {
            tokio::select! {
                output = self.resolve(&context.sink) => Ok(vec![output?]),
                () = context.cancel.cancelled() => Err(Error::Canceled),
            }
        }
        .boxed()
    }
}
