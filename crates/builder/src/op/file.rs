//! File operations: copy, mkdir, mkfile, rm, symlink, on top of a filesystem.

use bollard_buildkit_proto::pb;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use pb::file_action::Action;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::{Worker, chain_at};
use crate::error::Error;
use crate::fs::copy::{CopyOptions, copy, make_file};
use crate::fs::digest::digest;
use crate::fs::ignore::{Ignore, clean};
use crate::fs::owner;
use crate::fs::root::{self, NewDirectory, Root};
use crate::fs::source::{Select, Source};
use crate::layer::{Chain, Directory, Output};
use crate::solve::{Context, Key, Op};
use crate::work::Work;

/// A file operation.
pub(super) struct File {
    worker: Arc<Worker>,
    actions: Vec<pb::FileAction>,
    own: String,
    /// Input that the first action changes, -1 for none.
    base: i64,
}

impl File {
    /// Takes operations whose actions form one chain: each changes what the one before left.
    pub(super) fn new(worker: Arc<Worker>, op: &pb::FileOp, own: String, inputs: usize) -> Result<Self, Error> {
        let Some(first) = op.actions.first() else {
            return Err(Error::Definition("a file operation has no action".into()));
        };
        let inputs = i64::try_from(inputs).unwrap_or(i64::MAX);
        for (number, action) in op.actions.iter().enumerate() {
            let before = i64::try_from(number).unwrap_or(i64::MAX) - 1;
            let last = number + 1 == op.actions.len();
            let chained = number == 0 || action.input == inputs + before;
            if !chained || (action.output >= 0) != last || action.secondary_input >= inputs {
                return Err(Error::Unsupported("a file operation that is no chain of actions".into()));
            }
        }
        if first.input >= inputs {
            return Err(Error::Definition("a file operation needs an input that is not there".into()));
        }
        Ok(Self { worker, actions: op.actions.clone(), own, base: first.input })
    }

    async fn compute_key(&self, inputs: &[Output]) -> Result<Key, Error> {
        let mut key = self.worker.key("file", &self.own).fields([chain_at(inputs, self.base)?.key().as_str()]);
        let mut parts: Vec<String> = Vec::new();
        for action in &self.actions {
            let Some(Action::Copy(action_copy)) = &action.action else { continue };
            let input = usize::try_from(action.secondary_input).ok().and_then(|index| inputs.get(index));
            match input {
                Some(Output::Layers(chain)) => parts.push(chain.key().to_string()),
                Some(Output::Directory(directory)) => {
                    let (directory, action) = (Arc::clone(directory), action_copy.clone());
                    parts.push(
                        blocking(move || {
                            let source = host_source(&directory)?;
                            digest(&source, &source.select(&action.src, select(&action))?)
                        })
                        .await?,
                    );
                }
                None => return Err(Error::Definition("a copy has no source".into())),
            }
        }
        key = key.fields(parts.iter().map(String::as_str));
        Ok(key.finish())
    }

    async fn execute(&self, inputs: &[Output], context: &Context) -> Result<Vec<Output>, Error> {
        let work = Work::create(&self.worker.config, &self.worker.store, &self.worker.build)?;
        let made = self.make(&work, inputs, context).await;
        work.clear().await;
        Ok(vec![Output::Layers(made?)])
    }

    async fn make(&self, work: &Work, inputs: &[Output], context: &Context) -> Result<Chain, Error> {
        let parents = chain_at(inputs, self.base)?;
        let rootfs = work.mount("rootfs", &parents, false).await?;
        let mut sources = BTreeMap::new();
        for action in &self.actions {
            let index = action.secondary_input;
            if let Some(Action::Copy(_)) = action.action
                && !sources.contains_key(&index)
            {
                sources.insert(index, Origin::of(work, inputs, index).await?);
            }
        }
        let job = Job {
            actions: self.actions.clone(),
            rootfs,
            sources,
            epoch: self.worker.source_date_epoch,
            cancel: context.cancel.clone(),
        };
        blocking(move || job.apply()).await?;
        if context.cancel.is_cancelled() {
            return Err(Error::Canceled);
        }
        self.worker.commit(work, &parents, &context.key).await
    }
}

/// Runs on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(job).await.map_err(|error| Error::Panic(error.to_string()))?
}

/// Where the files of a copy come from.
enum Origin {
    Directory(Arc<Directory>),
    Mounted(PathBuf),
}

impl Origin {
    async fn of(work: &Work, inputs: &[Output], index: i64) -> Result<Self, Error> {
        match usize::try_from(index).ok().and_then(|index| inputs.get(index)) {
            Some(Output::Directory(directory)) => Ok(Self::Directory(Arc::clone(directory))),
            Some(Output::Layers(chain)) => Ok(Self::Mounted(work.mount(&format!("in{index}"), chain, true).await?)),
            None => Err(Error::Definition("a copy has no source".into())),
        }
    }

    fn open(&self) -> Result<Source, Error> {
        match self {
            Self::Directory(directory) => host_source(directory),
            Self::Mounted(path) => Ok(Source {
                root: Root::open(path)?,
                ignore: Ignore::default(),
                own_by_root: false,
                place: "the filesystem that is copied from".into(),
            }),
        }
    }
}

fn host_source(directory: &Directory) -> Result<Source, Error> {
    Ok(Source {
        root: Root::open(&directory.path)?,
        ignore: directory.ignore.clone(),
        own_by_root: true,
        place: directory.place.clone(),
    })
}

fn select(action: &pb::FileActionCopy) -> Select {
    Select { wildcards: action.allow_wildcard, allow_empty: action.allow_empty_wildcard, follow: action.follow_symlink }
}

/// The part that blocks.
struct Job {
    actions: Vec<pb::FileAction>,
    rootfs: PathBuf,
    sources: BTreeMap<i64, Origin>,
    epoch: Option<i64>,
    cancel: CancellationToken,
}

impl Job {
    fn apply(&self) -> Result<(), Error> {
        let target = Root::open(&self.rootfs)?;
        for action in &self.actions {
            match action.action.as_ref() {
                Some(Action::Copy(copy)) => self.copy(&target, copy, action.secondary_input)?,
                Some(Action::Mkdir(mkdir)) => self.mkdir(&target, mkdir)?,
                Some(Action::Mkfile(mkfile)) => {
                    let new = self.attributes(&target, mkfile.owner.as_ref(), mkfile.mode, mkfile.timestamp)?;
                    make_file(&target, &clean(&format!("/{}", mkfile.path)), &mkfile.data, &new)?;
                }
                Some(Action::Rm(rm)) => remove(&target, rm)?,
                Some(Action::Symlink(_)) | None => {
                    return Err(Error::Unsupported("the file action symlink".into()));
                }
            }
        }
        Ok(())
    }

    fn copy(&self, target: &Root, action: &pb::FileActionCopy, index: i64) -> Result<(), Error> {
        let source =
            self.sources.get(&index).ok_or_else(|| Error::Definition("a copy has no source".into()))?.open()?;
        let matches = source.select(&action.src, select(action))?;
        let owner = action.owner.as_ref().map(|option| owner::resolve(option, target)).transpose()?;
        let exclude = Ignore::new(&action.exclude_patterns).map_err(|error| Error::Request(error.to_string()))?;
        let options = CopyOptions {
            owner,
            mode: u32::try_from(action.mode).ok(),
            exclude,
            contents: action.dir_copy_contents,
            unpack: action.attempt_unpack_docker_compatibility,
            timestamp: seconds(action.timestamp),
        };
        let slash = if action.dest.ends_with('/') && action.dest != "/" { "/" } else { "" };
        let destination = format!("{}{slash}", clean(&format!("/{}", action.dest)));
        copy(&source, &matches, target, &destination, &options, &self.cancel)
    }

    fn mkdir(&self, target: &Root, action: &pb::FileActionMkDir) -> Result<(), Error> {
        let path = clean(&format!("/{}", action.path));
        let new = self.attributes(target, action.owner.as_ref(), action.mode, action.timestamp)?;
        if !action.make_parents {
            let (parent, _) = root::split(&path);
            if target.stat(parent, true)?.is_none() {
                return Err(Error::Missing { path: parent.to_owned(), place: "the filesystem of the step".into() });
            }
        }
        target.make_directory(&path, &new).map(drop)
    }

    fn attributes(
        &self,
        target: &Root,
        owner: Option<&pb::ChownOpt>,
        mode: i32,
        timestamp: i64,
    ) -> Result<NewDirectory, Error> {
        let (uid, gid) = owner.map_or(Ok((0, 0)), |option| owner::resolve(option, target))?;
        let modified = seconds(timestamp).or(self.epoch).map(|seconds| (seconds, 0));
        Ok(NewDirectory { uid, gid, mode: u32::try_from(mode).unwrap_or(0o755) & 0o7777, modified })
    }
}

/// LLB times are nanoseconds, -1 for none.
fn seconds(timestamp: i64) -> Option<i64> {
    (timestamp >= 0).then_some(timestamp / 1_000_000_000)
}

fn remove(target: &Root, action: &pb::FileActionRm) -> Result<(), Error> {
    if action.allow_wildcard {
        return Err(Error::Unsupported("the file action rm with wildcards".into()));
    }
    let path = clean(&format!("/{}", action.path));
    let missing = || Error::Missing { path: path.clone(), place: "the filesystem of the step".into() };
    match target.stat(&path, false)? {
        None if action.allow_not_found => return Ok(()),
        None => return Err(missing()),
        Some(stat) if root::is(&stat, rustix::fs::FileType::Directory) => {
            return Err(Error::Unsupported("the file action rm of a directory".into()));
        }
        Some(_) => {}
    }
    let (parent, name) = root::split(&path);
    let parent = target.make_directory(parent, &NewDirectory { uid: 0, gid: 0, mode: 0o755, modified: None })?;
    rustix::fs::unlinkat(parent.as_fd(), name, rustix::fs::AtFlags::empty())
        .map_err(Error::sys("remove", target.name_of(&path)))
}

impl Op<Output> for File {
    fn cacheable(&self) -> bool {
        true
    }

    fn key<'a>(&'a self, inputs: &'a [Output]) -> BoxFuture<'a, Result<Key, Error>> {
        self.compute_key(inputs).boxed()
    }

    fn run<'a>(&'a self, inputs: &'a [Output], context: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, Error>> {
        self.execute(inputs, context).boxed()
    }
}
