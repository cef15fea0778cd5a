//! What the operations of LLB do: sources, commands, files.

mod bundle;
mod exec;
mod file;
mod source;
mod stubs;

use bollard_buildkit_proto::pb;
use prost::Message as _;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::{self, Cache};
use crate::config::{CACHE_LEASE, Config};
use crate::error::Error;
use crate::graph::Vertex;
use crate::layer::{Chain, Directory, Output};
use crate::solve::{self, Key, KeyWriter, Task};
use crate::store::{Commit, Store};
use crate::work::Work;
use futures::FutureExt as _;
use futures::future::BoxFuture;

/// What all operations of one build share.
#[derive(Debug)]
pub struct Worker {
    /// How the builder is set up.
    pub config: Config,
    /// The image store.
    pub store: Store,
    /// Known results.
    pub cache: Arc<Cache>,
    /// The build's lease and the name of its working directory.
    pub build: String,
    /// Directories by name; "context" is the build context.
    pub directories: BTreeMap<String, Arc<Directory>>,
    /// "gzip", "zstd", "none".
    pub compression: String,
    /// Newer times become this.
    pub source_date_epoch: Option<i64>,
    /// For RUN, in bytes.
    pub memory_limit: Option<u64>,
    /// Diff IDs that are known to be in the store.
    pub verified: Mutex<HashSet<String>>,
}

impl Worker {
    /// Puts operations behind the vertices of a graph.
    pub fn tasks(self: &Arc<Self>, vertices: &[Vertex]) -> Result<Vec<Task<Output>>, Error> {
        vertices.iter().map(|vertex| Ok(Task { vertex: vertex.clone(), op: self.op(vertex)? })).collect()
    }

    fn op(self: &Arc<Self>, vertex: &Vertex) -> Result<Arc<dyn solve::Op<Output>>, Error> {
        let worker = Arc::clone(self);
        let op = vertex.op.op.as_ref().ok_or_else(|| Error::Definition(format!("{} does nothing", vertex.digest)))?;
        let own = own_digest(&vertex.op);
        Ok(match op {
            pb::op::Op::Source(op) => Arc::new(source::Source::new(worker, op, vertex.op.platform.as_ref())?),
            pb::op::Op::Exec(op) => Arc::new(exec::Exec::new(worker, op, own)?),
            pb::op::Op::File(op) => Arc::new(file::File::new(worker, op, own, vertex.inputs.len())?),
            pb::op::Op::Build(_) => return Err(Error::Unsupported("the operation build".into())),
            pb::op::Op::Merge(_) => return Err(Error::Unsupported("the operation merge".into())),
            pb::op::Op::Diff(_) => return Err(Error::Unsupported("the operation diff".into())),
        })
    }

    /// Starts the key of an operation that makes layers.
    fn key(&self, kind: &str, own: &str) -> KeyWriter {
        let epoch = self.source_date_epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        KeyWriter::new(kind).fields([own, self.compression.as_str(), epoch.as_str()])
    }

    /// Commits a step's root filesystem under a new cache record of `key`.
    async fn commit(&self, work: &Work, parents: &Chain, key: &Key) -> Result<Chain, Error> {
        let lease = self.cache.reserve(key, &self.build)?;
        let made = async {
            self.store.create_lease(&lease, CACHE_LEASE).await?;
            let how =
                Commit { lease: &lease, compression: &self.compression, source_date_epoch: self.source_date_epoch };
            work.commit("rootfs", parents, how).await
        };
        let chain = match made.await {
            Ok(chain) => chain,
            Err(error) => {
                self.forget(&lease).await;
                return Err(error);
            }
        };
        if chain.0.len() == parents.0.len() {
            self.forget(&lease).await;
        }
        self.trust(&chain);
        Ok(chain)
    }

    async fn forget(&self, lease: &str) {
        let gone = self.store.delete_lease(lease).await.and_then(|()| self.cache.remove(lease));
        if let Err(error) = gone {
            tracing::warn!(lease, %error, "remove an unused cache record");
        }
    }

    fn trust(&self, chain: &Chain) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.extend(chain.diff_ids());
    }

    fn trusts(&self, chain: &Chain) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        chain.0.iter().all(|layer| verified.contains(&layer.diff_id))
    }

    /// Whether the store still has all layers; if so the build's lease holds them from now on.
    async fn verify(&self, chain: &Chain) -> Result<bool, Error> {
        if self.trusts(chain) {
            return Ok(true);
        }
        let key = format!("{}-verify-{}", self.build, cache::random());
        let new = crate::store::Prepare {
            key: &key,
            parents: chain.diff_ids(),
            read_only: true,
            labels: std::collections::HashMap::from([
                (crate::work::ROOT_LABEL.to_owned(), self.config.root.to_string_lossy().into_owned()),
                (crate::work::WORK_LABEL.to_owned(), self.build.clone()),
            ]),
            lease: &self.build,
        };
        match self.store.prepare(new).await {
            Ok(_) => {
                self.store.remove(&key).await?;
                self.trust(chain);
                Ok(true)
            }
            Err(error) if error.is_lost() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl solve::Cache<Output> for Worker {
    fn lookup<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<Output>>, Error>> {
        async move {
            let Some((record, chains)) = self.cache.find(key)? else { return Ok(None) };
            for chain in &chains {
                if !self.verify(chain).await? {
                    self.forget(&record.id).await;
                    return Ok(None);
                }
            }
            self.cache.touch(&record.id)?;
            Ok(Some(chains.into_iter().map(Output::Layers).collect()))
        }
        .boxed()
    }

    fn record<'a>(&'a self, key: &'a Key, name: &'a str, outputs: &'a [Output]) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let chains: Vec<Chain> = outputs.iter().filter_map(Output::chain).cloned().collect();
            let pending: HashSet<String> =
                self.cache.list()?.into_iter().filter(|record| record.pending).map(|record| record.id).collect();
            // The newest layer is ours when its lease is that of an unfinished record.
            let newest = chains.iter().filter_map(|chain| chain.0.last()).find(|layer| pending.contains(&layer.lease));
            let lease = newest.map_or("", |layer| layer.lease.as_str());
            let size = newest.map_or(0, |layer| i64::try_from(layer.descriptor.size).unwrap_or(i64::MAX));
            for older in self.cache.finish(key, lease, &chains, size, name)? {
                self.store.delete_lease(&older).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// Identity of an operation without its inputs, whose content comes into the key separately.
fn own_digest(op: &pb::Op) -> String {
    let alone = pb::Op { inputs: Vec::new(), ..op.clone() };
    oci::Digest::of(&alone.encode_to_vec()).to_string()
}

/// The chain that input `index` is; -1 is the empty filesystem.
fn chain_at(inputs: &[Output], index: i64) -> Result<Chain, Error> {
    if index < 0 {
        return Ok(Chain::default());
    }
    let input = usize::try_from(index).ok().and_then(|index| inputs.get(index));
    match input {
        Some(Output::Layers(chain)) => Ok(chain.clone()),
        Some(Output::Directory(_)) => Err(Error::Unsupported("a directory of the host as root filesystem".into())),
        None => Err(Error::Definition(format!("input {index} does not exist"))),
    }
}
