//! The verb: from a request to an image.

use bollard_buildkit_proto::pb;
use futures::future::try_join_all;
use oci::{ImageConfig, Platform};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Limits, Record};
use crate::config::{BUILD_LEASE, Config};
use crate::error::Error;
use crate::frontend::dockerfile::{self, ImageRequest, Images, Lowered, NamedContext, Options, ResolvedImage};
use crate::fs::ignore::{self, Ignore};
use crate::graph::{Graph, Location};
use crate::layer::{Chain, Directory, Output};
use crate::op::Worker;
use crate::output;
use crate::progress::Sink;
use crate::solve::{Flights, Outcome, Solver};
use crate::store::Store;
use crate::work::Work;
use crate::{image, recover};

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileAt {
    /// `<context>/Dockerfile`
    Context,
    /// A file of this host.
    Path(PathBuf),
    /// The text itself.
    Inline(String),
}

/// What becomes of a built filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportKind {
    /// An image in the store.
    Image,
    /// An OCI layout in a tar.
    OciArchive,
    /// What `docker load` reads.
    DockerArchive,
    /// An OCI layout.
    OciDir,
    /// Files in a directory.
    Local,
    /// Files in a tar.
    Tar,
}

/// One output.
#[derive(Debug, Clone)]
pub struct Export {
    /// What.
    pub kind: ExportKind,
    /// Where, absolute; unused for an image.
    pub path: PathBuf,
    /// Also to the registry that the image's names say.
    pub push: bool,
}

/// A build, as asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Absolute directory.
    pub context: Option<PathBuf>,
    /// The Dockerfile.
    pub dockerfile: DockerfileAt,
    /// Stage to build.
    pub target: Option<String>,
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// Normalised names for the image.
    pub tags: Vec<String>,
    /// Empty: an image in the store.
    pub exports: Vec<Export>,
    /// Run every step.
    pub no_cache: bool,
    /// Ask registries for newer base images.
    pub pull: bool,
    /// What to build for.
    pub platform: Platform,
    /// RUN without a network.
    pub no_network: bool,
    /// LLB instead of a Dockerfile.
    pub definition: Vec<u8>,
    /// "gzip", "zstd", "none".
    pub compression: String,
    /// `--build-context`
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// For RUN, bytes.
    pub memory_limit: Option<u64>,
    /// Host and address, for RUN.
    pub extra_hosts: Vec<(String, String)>,
}

/// A finished build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// Digest of the config; empty when no image was made.
    pub image_id: String,
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Names of the image.
    pub names: Vec<String>,
    /// Steps that ran.
    pub executed: u32,
    /// Steps from the cache.
    pub cached: u32,
    /// For people.
    pub warnings: Vec<String>,
}

/// Builds images.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    store: Store,
    cache: Arc<Cache>,
    flights: Arc<Flights>,
    stop: CancellationToken,
    running: TaskTracker,
}

impl Builder {
    /// Opens the builder's state and removes what builders that died left.
    pub async fn open(config: Config, store: Store) -> Result<Self, Error> {
        for dir in [config.work(), config.cache_mounts()] {
            std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        let cache = Arc::new(Cache::open(&config.cache_db())?);
        recover::recover(&config, &cache, &store).await?;
        let (stop, running) = (CancellationToken::new(), TaskTracker::new());
        Ok(Self { config, store, cache, flights: Arc::default(), stop, running })
    }

    /// Builds. On any error, and when `cancel` is set, nothing but cache records of finished steps stays.
    pub async fn build(&self, request: &Request, sink: &Sink, cancel: &CancellationToken) -> Result<Built, Error> {
        let _running = self.running.token();
        let work = Work::create(&self.config, &self.store, "")?;
        let result = self.run(request, sink, &cancel.child_token(), &work).await;
        let released = self.store.delete_lease(work.id()).await;
        work.clear().await;
        let built = result?;
        released?;
        if self.config.cache_limit_bytes > 0 {
            let keep_bytes = i64::try_from(self.config.cache_limit_bytes).unwrap_or(i64::MAX);
            self.remove_records(Limits { keep_seconds: 0, keep_bytes }).await?;
        }
        Ok(built)
    }

    /// Runs a build to its end, which comes early when the builder shuts down.
    async fn run(
        &self,
        request: &Request,
        sink: &Sink,
        cancel: &CancellationToken,
        work: &Work,
    ) -> Result<Built, Error> {
        let job = Job { builder: self, request, sink, cancel, work };
        let running = job.run();
        tokio::pin!(running);
        tokio::select! {
            result = &mut running => result,
            () = self.stop.cancelled() => {
                cancel.cancel();
                running.await
            }
        }
    }

    /// The graph of a request, without building it.
    pub async fn definition(&self, request: &Request, sink: &Sink) -> Result<pb::Definition, Error> {
        let work = Work::create(&self.config, &self.store, "")?;
        let cancel = CancellationToken::new();
        let job = Job { builder: self, request, sink, cancel: &cancel, work: &work };
        let lowered = match self.store.create_lease(work.id(), BUILD_LEASE).await {
            Ok(()) => job.lower().await,
            Err(error) => Err(error),
        };
        let released = self.store.delete_lease(work.id()).await;
        work.clear().await;
        released?;
        Ok(lowered?.definition)
    }

    /// What the cache holds.
    pub fn disk_usage(&self) -> Result<Vec<Record>, Error> {
        self.cache.list()
    }

    /// Forgets results, with `all` also the contents of cache mounts. Returns what went and the bytes that it freed.
    pub async fn prune(&self, limits: Limits, all: bool) -> Result<(Vec<String>, i64), Error> {
        let removed = self.remove_records(limits).await?;
        let mut bytes = 0;
        if all {
            bytes += remove_cache_mounts(&self.config.cache_mounts())?;
        }
        bytes += self.store.collect_garbage().await?;
        Ok((removed, bytes))
    }

    async fn remove_records(&self, limits: Limits) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for record in self.cache.prunable(limits)? {
            if !record.lease.is_empty() {
                self.store.delete_lease(&record.lease).await?;
            }
            self.cache.remove(&record.id)?;
            removed.push(record.id);
        }
        Ok(removed)
    }

    /// Cancels what runs and waits until it has cleaned up.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// Those that no build holds; returns their size.
fn remove_cache_mounts(dir: &Path) -> Result<i64, Error> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let lock = path.with_extension("lock");
        if path.is_dir() && statedir::Lock::try_acquire(&lock)?.is_some() {
            bytes += disk_usage(&path);
            std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            std::fs::remove_file(&lock).map_err(Error::io("remove", &lock))?;
        }
    }
    Ok(bytes)
}

/// Blocks on disk of a tree, in bytes; what cannot be read counts nothing.
fn disk_usage(path: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    let own = path.symlink_metadata().map_or(0, |data| i64::try_from(data.blocks() * 512).unwrap_or(0));
    let is_dir = path.symlink_metadata().is_ok_and(|data| data.is_dir());
    let children = is_dir.then(|| std::fs::read_dir(path).ok()).flatten();
    own + children.into_iter().flatten().flatten().map(|entry| disk_usage(&entry.path())).sum::<i64>()
}

/// One build.
struct Job<'a> {
    builder: &'a Builder,
    request: &'a Request,
    sink: &'a Sink,
    cancel: &'a CancellationToken,
    work: &'a Work,
}

impl Job<'_> {
    async fn run(&self) -> Result<Built, Error> {
        self.builder.store.create_lease(self.work.id(), BUILD_LEASE).await?;
        let lowered = tokio::select! {
            lowered = self.lower() => lowered?,
            () = self.cancel.cancelled() => return Err(Error::Canceled),
        };
        let graph = Graph::load(&lowered.definition)?;
        let worker = Arc::new(self.worker()?);
        let tasks = worker.tasks(&graph.vertices)?;
        let cache: Arc<Worker> = Arc::clone(&worker);
        let solver = Solver::new(cache, Arc::clone(&self.builder.flights), self.builder.config.parallelism);
        let outcome = solver.solve(tasks, self.sink, self.cancel).await?;
        let (chain, config) = self.result(&graph, &outcome, &lowered)?;
        let export = output::Exporter {
            store: &self.builder.store,
            work: self.work,
            sink: self.sink,
            cancel: self.cancel,
            names: &self.request.tags,
        };
        let mut built = tokio::select! {
            built = export.all(&self.request.exports, &chain, &config) => built?,
            () = self.cancel.cancelled() => return Err(Error::Canceled),
        };
        (built.executed, built.cached) = (outcome.executed, outcome.cached);
        built.warnings = lowered.warnings;
        Ok(built)
    }

    async fn lower(&self) -> Result<Lowered, Error> {
        let request = self.request;
        if !request.definition.is_empty() {
            let definition = pb::Definition::decode(request.definition.as_slice())
                .map_err(|error| Error::Definition(format!("it cannot be decoded: {error}")))?;
            return Ok(foreign(definition, &request.platform));
        }
        let (name, text, patterns) = self.dockerfile()?;
        let file = dockerfile::parse(&name, &text)?;
        let options = Options {
            target: request.target.clone(),
            build_args: request.build_args.clone(),
            labels: request.labels.clone(),
            platform: request.platform.clone(),
            host: Platform::host(),
            named_contexts: request.named_contexts.clone(),
            no_network: request.no_network,
            no_cache: request.no_cache,
            extra_hosts: request.extra_hosts.clone(),
            excludes: patterns,
        };
        let plan = dockerfile::plan(&file, &options)?;
        let images = self.images(plan.images(), &Source { name: &name, text: &text, lines: plan.lines() }).await?;
        Ok(dockerfile::lower(&file, &plan, &options, &images)?)
    }

    async fn images(&self, wanted: BTreeSet<ImageRequest>, source: &Source<'_>) -> Result<Images, Error> {
        let found = wanted.into_iter().map(|wanted| async move {
            let found = self.image(&wanted).await.map_err(|cause| source.failed(&wanted, cause))?;
            Ok::<_, Error>((wanted, found))
        });
        Ok(try_join_all(found).await?.into_iter().collect())
    }

    async fn image(&self, wanted: &ImageRequest) -> Result<ResolvedImage, Error> {
        let policy = if self.request.pull { "always" } else { "missing" };
        let parsed: Result<oci::Reference, _> = wanted.reference.parse();
        let reference = parsed.map_err(|error| Error::Request(error.to_string()))?;
        let name = reference.to_string();
        let store = &self.builder.store;
        let image = store.pull(&name, &wanted.platform, policy, self.work.id(), self.sink).await?;
        let tagged = name.split_once('@').map_or(name.as_str(), |(tagged, _)| tagged);
        Ok(ResolvedImage { pinned: format!("{tagged}@{}", image.manifest), config: image.config })
    }

    /// Name, text and ignore patterns.
    fn dockerfile(&self) -> Result<(String, String, Vec<String>), Error> {
        let context = self.request.context.as_deref();
        let path = match &self.request.dockerfile {
            DockerfileAt::Inline(text) => {
                return Ok(("<inline>".into(), text.clone(), self.patterns(None)?));
            }
            DockerfileAt::Path(path) => path.clone(),
            DockerfileAt::Context => {
                let missing = || Error::Request("there is neither a build context nor a Dockerfile".into());
                context.ok_or_else(missing)?.join("Dockerfile")
            }
        };
        let text = std::fs::read_to_string(&path).map_err(Error::io("read the Dockerfile", &path))?;
        let short = context.and_then(|context| path.strip_prefix(context).ok()).unwrap_or(&path);
        Ok((short.display().to_string(), text, self.patterns(Some(&path))?))
    }

    /// `<Dockerfile>.dockerignore`, else `<context>/.dockerignore`.
    fn patterns(&self, dockerfile: Option<&Path>) -> Result<Vec<String>, Error> {
        let beside = dockerfile.map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let common = self.request.context.as_ref().map(|context| context.join(".dockerignore"));
        for path in beside.into_iter().chain(common) {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let patterns = ignore::parse(&text);
                    Ignore::new(&patterns).map_err(|error| Error::Request(format!("{}: {error}", path.display())))?;
                    return Ok(patterns);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(Vec::new())
    }

    fn worker(&self) -> Result<Worker, Error> {
        let mut directories = BTreeMap::new();
        let mut add = |name: &str, path: &Path, place: String| {
            let data = std::fs::metadata(path).map_err(Error::io("open the build context", path))?;
            if !data.is_dir() {
                return Err(Error::Request(format!("the build context {} is no directory", path.display())));
            }
            let directory = Directory { path: path.to_owned(), ignore: Ignore::default(), place };
            directories.insert(name.to_owned(), Arc::new(directory));
            Ok(())
        };
        if let Some(context) = &self.request.context {
            add("context", context, "the build context".into())?;
        }
        for (name, context) in &self.request.named_contexts {
            if let NamedContext::Directory(path) = context {
                add(name, path, format!("the context {name}"))?;
            }
        }
        Ok(Worker {
            config: self.builder.config.clone(),
            store: self.builder.store.clone(),
            cache: Arc::clone(&self.builder.cache),
            build: self.work.id().to_owned(),
            directories,
            compression: self.request.compression.clone(),
            source_date_epoch: self.source_date_epoch()?,
            memory_limit: self.request.memory_limit,
            verified: Mutex::new(HashSet::new()),
        })
    }

    fn source_date_epoch(&self) -> Result<Option<i64>, Error> {
        let Some(text) = self.request.build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let epoch = text.parse().ok().filter(|epoch| *epoch >= 0 && jiff::Timestamp::from_second(*epoch).is_ok());
        epoch.map(Some).ok_or_else(|| Error::Request(format!("SOURCE_DATE_EPOCH={text}: not a number of seconds")))
    }

    /// Layers and configuration of the image.
    fn result(
        &self,
        graph: &Graph,
        outcome: &Outcome<Output>,
        lowered: &Lowered,
    ) -> Result<(Chain, ImageConfig), Error> {
        let chain_of = |digest: &str, index: i64| {
            let outputs = outcome.results.get(digest)?;
            outputs.get(usize::try_from(index).ok()?)?.chain().cloned()
        };
        let chain = match &graph.target {
            Some(target) => chain_of(&target.digest, target.index)
                .ok_or_else(|| Error::Definition("the target has no filesystem".into()))?,
            None => Chain::default(),
        };
        let lengths: HashMap<String, usize> =
            outcome.results.keys().filter_map(|digest| Some((digest.clone(), chain_of(digest, 0)?.0.len()))).collect();
        let base = lowered.base_vertex.as_ref().and_then(|digest| lengths.get(digest)).copied().unwrap_or(0);
        let created = match self.source_date_epoch()? {
            Some(epoch) => jiff::Timestamp::from_second(epoch).unwrap_or_default(),
            None => jiff::Timestamp::now(),
        };
        let config = image::configure(lowered, &chain, &lengths, base, &created.to_string());
        Ok((chain, config))
    }
}

/// The Dockerfile, for errors before there is a graph.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    lines: BTreeMap<ImageRequest, usize>,
}

impl Source<'_> {
    fn failed(&self, wanted: &ImageRequest, cause: Error) -> Error {
        let location = self.lines.get(wanted).map(|line| {
            let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end().to_owned();
            Box::new(Location { file: self.name.to_owned(), line: *line, text })
        });
        Error::Step { name: format!("FROM {}", wanted.reference), location, cause: Box::new(cause) }
    }
}

/// LLB of another frontend: there is no configuration but the platform.
fn foreign(definition: pb::Definition, platform: &Platform) -> Lowered {
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: Some(platform.variant.clone()).filter(|variant| !variant.is_empty()),
        ..ImageConfig::default()
    };
    Lowered {
        definition,
        config,
        base_history: Vec::new(),
        base_vertex: None,
        history: Vec::new(),
        warnings: Vec::new(),
    }
}
