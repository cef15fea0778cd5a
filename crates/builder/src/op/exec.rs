//! RUN: a command in a container on a new snapshot, by the OCI runtime's command line.

use bollard_buildkit_proto::pb;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::fs::OFlags;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::bundle::{self, Bind, Plan, Tmpfs};
use super::{Worker, chain_at, stubs};
use crate::error::Error;
use crate::fs::root::Root;
use crate::layer::{Chain, Output};
use crate::solve::{Context, Key, Op};
use crate::work::Work;

/// How long a cancelled command has between SIGKILL and the forced removal of its container.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How often a cache mount that another build has locked is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// An exec operation.
pub(super) struct Exec {
    worker: Arc<Worker>,
    op: pb::ExecOp,
    meta: pb::Meta,
    own: String,
    /// Input that is the root filesystem.
    root: i64,
}

impl Exec {
    pub(super) fn new(worker: Arc<Worker>, op: &pb::ExecOp, own: String) -> Result<Self, Error> {
        let meta = op.meta.clone().ok_or_else(|| Error::Definition("an exec operation has no command".into()))?;
        let root = op.mounts.iter().find(|mount| mount.dest == "/");
        let root = root.ok_or_else(|| Error::Definition("an exec operation has no root filesystem".into()))?.input;
        if op.mounts.iter().any(|mount| mount.dest != "/" && mount.output >= 0) {
            return Err(Error::Unsupported("an exec operation with more than one output".into()));
        }
        if op.security != i32::from(pb::SecurityMode::Sandbox) {
            return Err(Error::Unsupported("the security mode insecure".into()));
        }
        Ok(Self { worker, op: op.clone(), meta, own, root })
    }

    fn compute_key(&self, inputs: &[Output]) -> Result<Key, Error> {
        let mut key = self.worker.key("exec", &self.own);
        for index in 0..inputs.len() {
            let index = i64::try_from(index).unwrap_or(i64::MAX);
            key = key.fields([chain_at(inputs, index)?.key().as_str()]);
        }
        Ok(key.finish())
    }

    async fn execute(&self, inputs: &[Output], context: &Context) -> Result<Vec<Output>, Error> {
        let work = Work::create(&self.worker.config, &self.worker.store, &self.worker.build)?;
        let made = self.make(&work, inputs, context).await;
        work.clear().await;
        Ok(vec![Output::Layers(made?)])
    }

    async fn make(&self, work: &Work, inputs: &[Output], context: &Context) -> Result<Chain, Error> {
        let parents = chain_at(inputs, self.root)?;
        let rootfs = work.mount("rootfs", &parents, false).await?;
        let root = Root::open(&rootfs)?;
        let user =
            oci::user::resolve(&self.meta.user, &[], &root.read_text("/etc/passwd")?, &root.read_text("/etc/group")?)?;
        let mut binds = self.files(work)?;
        let mut tmpfs = Vec::new();
        let mut locks = Vec::new();
        for (number, mount) in self.op.mounts.iter().enumerate().filter(|(_, mount)| mount.dest != "/") {
            match pb::MountType::try_from(mount.mount_type) {
                Ok(pb::MountType::Bind) => binds.push(bind(work, inputs, mount, number).await?),
                Ok(pb::MountType::Cache) => binds.push(self.cache(work, mount, &mut locks, context).await?),
                Ok(pb::MountType::Tmpfs) => {
                    let size = mount.tmpfs_opt.map_or(0, |options| options.size);
                    tmpfs.push(Tmpfs { destination: mount.dest.clone(), size });
                }
                Ok(pb::MountType::Secret) if mount.secret_opt.as_ref().is_some_and(|options| options.optional) => {}
                _ => return Err(Error::Unsupported(format!("the mount at {} (secret or ssh)", mount.dest))),
            }
        }
        let plan = Plan {
            id: work.id(),
            meta: &self.meta,
            user: &user,
            rootfs,
            host_network: self.op.network != i32::from(pb::NetMode::None),
            binds,
            tmpfs,
            memory_limit: self.worker.memory_limit,
        };
        let made = stubs::missing(&root, &plan.destinations())?;
        self.run_bundle(work, &plan, context).await?;
        stubs::remove(&root, &made)?;
        // An open directory would keep the filesystem mounted.
        drop(root);
        drop(locks);
        self.worker.commit(work, &parents, &context.key).await
    }

    /// Files that every container gets.
    fn files(&self, work: &Work) -> Result<Vec<Bind>, Error> {
        let sandbox = self.op.network == i32::from(pb::NetMode::None);
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let host = read("/etc/hosts").filter(|_| !sandbox);
        let hosts = bundle::hosts(host.as_deref(), "buildkitsandbox", &self.meta.extra_hosts);
        let resolver = read("/etc/resolv.conf").filter(|_| !sandbox).unwrap_or_default();
        let mut binds = Vec::new();
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolver)] {
            let source = work.dir().join(name);
            std::fs::write(&source, text).map_err(Error::io("write", &source))?;
            binds.push(Bind { source, destination: format!("/etc/{name}"), readonly: true });
        }
        Ok(binds)
    }

    /// A directory that outlives builds. With `sharing=private`, a directory of its own for who comes second.
    async fn cache(
        &self,
        work: &Work,
        mount: &pb::Mount,
        locks: &mut Vec<statedir::Lock>,
        context: &Context,
    ) -> Result<Bind, Error> {
        let options = mount.cache_opt.clone().unwrap_or_default();
        let name = oci::Digest::of(options.id.as_bytes()).hex().to_owned();
        let caches = self.worker.config.cache_mounts();
        let mut source = caches.join(&name);
        std::fs::create_dir_all(&source).map_err(Error::io("create", &source))?;
        let lock = caches.join(format!("{name}.lock"));
        if options.sharing != i32::from(pb::CacheSharingOpt::Shared) {
            match statedir::Lock::try_acquire(&lock)? {
                Some(held) => locks.push(held),
                None if options.sharing == i32::from(pb::CacheSharingOpt::Private) => {
                    source = work.dir().join(format!("private-{name}"));
                    std::fs::create_dir_all(&source).map_err(Error::io("create", &source))?;
                }
                None => locks.push(wait_for(&lock, context).await?),
            }
        }
        Ok(Bind { source, destination: mount.dest.clone(), readonly: mount.readonly })
    }

    async fn run_bundle(&self, work: &Work, plan: &Plan<'_>, context: &Context) -> Result<(), Error> {
        let bundle = work.dir().join("bundle");
        std::fs::create_dir_all(&bundle).map_err(Error::io("create", &bundle))?;
        let spec = plan.spec().map_err(|error| Error::Definition(format!("the command of the step: {error}")))?;
        let path = bundle.join("config.json");
        std::fs::write(&path, spec.to_string()).map_err(Error::io("write", &path))?;
        let status = Container { runtime: &self.worker.config.runtime, work, context }.run(&bundle).await?;
        match status.code() {
            Some(0) => Ok(()),
            Some(code) => Err(Error::Exit { command: self.meta.args.join(" "), code }),
            None => Err(self.runtime_error(format!("ended with {status}"))),
        }
    }

    fn runtime_error(&self, message: String) -> Error {
        Error::Runtime { runtime: self.worker.config.runtime.display().to_string(), message }
    }
}

async fn wait_for(path: &Path, context: &Context) -> Result<statedir::Lock, Error> {
    loop {
        if let Some(lock) = statedir::Lock::try_acquire(path)? {
            return Ok(lock);
        }
        tokio::select! {
            () = tokio::time::sleep(LOCK_RETRY) => {}
            () = context.cancel.cancelled() => return Err(Error::Canceled),
        }
    }
}

/// Files of another filesystem. A writable one loses what is written when the step ends.
async fn bind(work: &Work, inputs: &[Output], mount: &pb::Mount, number: usize) -> Result<Bind, Error> {
    let chain = chain_at(inputs, mount.input)?;
    let at = work.mount(&format!("mount{number}"), &chain, mount.readonly).await?;
    let selected = Root::open(&at)?.resolve(&mount.selector, OFlags::PATH).map_err(|_| Error::Missing {
        path: mount.selector.clone(),
        place: format!("what is mounted at {}", mount.dest),
    })?;
    // The path that the kernel resolved within the mount.
    let link = format!("/proc/self/fd/{}", selected.as_raw_fd());
    let source = std::fs::read_link(&link).map_err(Error::io("read", &link))?;
    Ok(Bind { source, destination: mount.dest.clone(), readonly: mount.readonly })
}

struct Container<'a> {
    runtime: &'a Path,
    work: &'a Work,
    context: &'a Context,
}

impl Container<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(self.state()).stdin(Stdio::null());
        command
    }

    fn state(&self) -> PathBuf {
        self.work.dir().join("runtime")
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let runtime = self.runtime.display().to_string();
        move |error| Error::Runtime { runtime, message: error.to_string() }
    }

    /// Runs to the end, or until the build is cancelled.
    async fn run(&self, bundle: &Path) -> Result<ExitStatus, Error> {
        let state = self.state();
        std::fs::create_dir_all(&state).map_err(Error::io("create", &state))?;
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(bundle).arg(self.work.id());
        // Its own process group: Ctrl-C is for us, and we end it.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(self.failed())?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let logs = async { tokio::join!(self.forward(1, stdout), self.forward(2, stderr)) };
        let ended = async {
            logs.await;
            child.wait().await
        };
        let ended = tokio::select! {
            status = ended => Some(status),
            () = self.context.cancel.cancelled() => None,
        };
        match ended {
            Some(status) => status.map_err(self.failed()),
            None => {
                self.kill(&mut child).await;
                Err(Error::Canceled)
            }
        }
    }

    async fn forward(&self, stream: u32, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; 8192];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            self.context.sink.log(&self.context.digest, stream, &buffer[..count]);
        }
    }

    async fn kill(&self, child: &mut Child) {
        self.quietly(&["kill", self.work.id(), "KILL"]).await;
        if tokio::time::timeout(KILL_WAIT, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
        self.quietly(&["delete", "--force", self.work.id()]).await;
    }

    /// For what may fail because it is done already.
    async fn quietly(&self, arguments: &[&str]) {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = command.status().await {
            tracing::warn!(?arguments, %error, "runtime");
        }
    }
}

impl Op<Output> for Exec {
    fn cacheable(&self) -> bool {
        true
    }

    fn key<'a>(&'a self, inputs: &'a [Output]) -> BoxFuture<'a, Result<Key, Error>> {
        async move { self.compute_key(inputs) }.boxed()
    }

    fn run<'a>(&'a self, inputs: &'a [Output], context: &'a Context) -> BoxFuture<'a, Result<Vec<Output>, Error>> {
        self.execute(inputs, context).boxed()
    }
}
