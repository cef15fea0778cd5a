//! The one place that knows every tool's socket. Connects when first needed, starts a tool that is not there, watches
//! it, and starts it again when it dies.
//!
//! What is here is never remembered: a channel is only as good as the health stream that watches it.
mod calls;
mod watch;

use crate::error::Error;
use crate::tools::Tool;
use rpc::{Code, Failure};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::Channel;

/// How long a connect to a local socket may take: a listener that is alive answers at once.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a failed start counts as the answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the tools are and how they are started.
#[derive(Clone, Debug, Default)]
pub struct ToolConfig {
    /// `--root` of every tool.
    pub root: PathBuf,
    /// `--run`: sockets, logs.
    pub run: PathBuf,
    /// Never start a tool.
    pub no_spawn: bool,
    /// More arguments after `serve`, for each tool by [`Tool::index`].
    pub arguments: [Vec<String>; Tool::ALL.len()],
}

/// Every tool's client. Cheap to clone.
#[derive(Clone)]
pub struct Clients(Arc<Inner>);

struct Inner {
    config: ToolConfig,
    slots: [Slot; Tool::ALL.len()],
    reconnected: tokio::sync::broadcast::Sender<Tool>,
}

#[derive(Default)]
struct Slot {
    channel: Mutex<Option<Channel>>,
    // One start at a time in this process; between processes a file lock does the same.
    starting: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    watched: AtomicBool,
}

impl Clients {
    /// Knows the sockets; connects to none yet.
    pub fn new(config: ToolConfig) -> Self {
        let (reconnected, _) = tokio::sync::broadcast::channel(16);
        Self(Arc::new(Inner { config, slots: Default::default(), reconnected }))
    }

    /// `<run>/<tool>.sock`.
    pub fn socket(&self, tool: Tool) -> PathBuf {
        rpc::socket_path(&self.0.config.run, tool.name())
    }

    /// The `--run` directory.
    pub fn run(&self) -> &Path {
        &self.0.config.run
    }

    /// The `--root` directory.
    pub fn root(&self) -> &Path {
        &self.0.config.root
    }

    /// Starts the tools that have work of their own, and keeps them up for as long as this runs.
    pub fn keep_up(&self) {
        for tool in Tool::ALWAYS {
            self.watch(tool);
        }
    }

    /// Tells of each tool that answers (again), first time included.
    pub fn reconnections(&self) -> tokio::sync::broadcast::Receiver<Tool> {
        self.0.reconnected.subscribe()
    }

    /// A channel to the tool, which is started when it does not run.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub async fn channel(&self, tool: Tool) -> Result<Channel, Error> {
        if let Some(channel) = self.cached(tool) {
            return Ok(channel);
        }
        self.watch(tool);
        self.ensure(tool).await
    }

    /// A plain connection, for passing calls through.
    pub async fn stream(&self, tool: Tool) -> Result<UnixStream, Error> {
        let socket = self.socket(tool);
        if let Ok(stream) = rpc::open(&socket).await {
            return Ok(stream);
        }
        // The channel that is remembered was the dead listener's.
        self.remember(tool, None);
        self.watch(tool);
        self.ensure(tool).await?;
        let refused = |e: std::io::Error| {
            self.down(tool, Failure::new(Code::Unavailable, "UNREACHABLE", "cannot connect").with_cause(&e))
        };
        rpc::open(&socket).await.map_err(refused)
    }

    // Connects, or starts the tool and connects.
    async fn ensure(&self, tool: Tool) -> Result<Channel, Error> {
        let slot = &self.0.slots[tool.index()];
        let mut failed = slot.starting.lock().await;
        if let Some(channel) = self.cached(tool) {
            return Ok(channel);
        }
        let socket = self.socket(tool);
        let channel = match rpc::connect(&socket, CONNECT).await {
            Ok(channel) => channel,
            Err(failure) if self.0.config.no_spawn => return Err(self.down(tool, failure)),
            // A program that ends at once is not started again by every call that wants it.
            Err(failure) if failed.as_ref().is_some_and(|(at, _)| at.elapsed() < AGAIN) => {
                let last = failed.as_ref().map(|(_, last)| last.clone());
                return Err(self.down(tool, last.unwrap_or(failure)));
            }
            Err(_) => match self.spawn(tool).await {
                Ok(channel) => channel,
                Err(failure) => {
                    *failed = Some((Instant::now(), failure.clone()));
                    return Err(self.down(tool, failure));
                }
            },
        };
        self.remember(tool, Some(channel.clone()));
        let _ = self.0.reconnected.send(tool);
        Ok(channel)
    }

    async fn spawn(&self, tool: Tool) -> Result<Channel, Failure> {
        let config = &self.0.config;
        let program = rpc::spawn::find_program(&tool.program())?;
        let lock = config.run.join(format!("{tool}.spawn.lock"));
        let taken = tokio::task::spawn_blocking(move || statedir::Lock::acquire(&lock)).await;
        let _lock = match taken {
            Ok(Ok(lock)) => lock,
            Ok(Err(e)) => return Err(Failure::new(Code::Internal, "LOCK", "lock the start of a tool").with_cause(&e)),
            Err(e) => return Err(Failure::new(Code::Internal, "LOCK", "lock the start of a tool").with_cause(&e)),
        };
        // Another engine, or a one-shot program, may have been quicker.
        if let Ok(channel) = rpc::connect(&self.socket(tool), CONNECT).await {
            return Ok(channel);
        }
        let start = rpc::spawn::Tool {
            name: tool.name().into(),
            program,
            root: config.root.clone(),
            run: config.run.clone(),
            args: config.arguments[tool.index()].clone(),
        };
        tracing::info!(tool = tool.name(), program = %start.program.display(), "starting");
        let log = config.run.join("log").join(format!("{tool}.log"));
        start.detached(&log).await.map_err(|f| {
            let hint = format!("see {}", log.display());
            if f.hint.is_empty() { f.with_hint(hint) } else { f }
        })
    }

    /// Whether it answers now, without starting it.
    pub async fn serving(&self, tool: Tool) -> Result<(), Error> {
        let limit = Duration::from_secs(1);
        let asked = async {
            let channel = rpc::connect(&self.socket(tool), limit).await?;
            rpc::health(channel, "").await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(self.down(tool, Failure::new(Code::Unavailable, "NOT_SERVING", "it does not serve"))),
            Ok(Err(failure)) => Err(self.down(tool, failure)),
            Err(_) => Err(Error::Timeout { tool, call: "Health.Check", seconds: 1 }),
        }
    }

    fn cached(&self, tool: Tool) -> Option<Channel> {
        self.0.slots[tool.index()].channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, tool: Tool, channel: Option<Channel>) {
        *self.0.slots[tool.index()].channel.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }

    fn down(&self, tool: Tool, failure: Failure) -> Error {
        Error::Down { tool, socket: self.socket(tool).display().to_string(), failure }
    }

    fn watch(&self, tool: Tool) {
        if !self.0.slots[tool.index()].watched.swap(true, Ordering::SeqCst) {
            tokio::spawn(watch::keep(self.clone(), tool));
        }
    }
}
