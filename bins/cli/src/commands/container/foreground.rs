//! A container's first process in the foreground: `run`, `start -a`, `attach`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::supervisor::v1::{
    AttachOpen, AttachRequest, AttachResponse, ContainerStatus, GetContainerRequest, KillContainerRequest,
    WaitCondition, WaitContainerRequest, attach_response,
};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::{Answer, Client, failure, is_not_found, next};
use crate::show::container::exit_code;
use crate::stream::keys::DetachKeys;
use crate::stream::pump::{End, Session, Wish, attach_open};
use crate::stream::{signals, terminal};

/// How long a lost supervisor may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to join to.
pub struct Target {
    pub id: String,
    pub tty: bool,
    pub stdin: bool,
    pub sig_proxy: bool,
    pub keys: DetachKeys,
}

type Streams = (Sender<AttachRequest>, Streaming<AttachResponse>);

/// Joins this terminal to a container. `begin` is called once the streams are connected (that is where `run` starts
/// the container); the result is the exit code.
pub async fn join(
    client: &Client,
    target: Target,
    begin: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let Target { id, tty, stdin, sig_proxy, keys } = target;
    let (mut requests, mut responses) = open(client, &id, stdin, tty).await?;
    let mut session = Session::begin(Wish { stdin, tty, sig_proxy, keys })?;
    begin().await?;
    loop {
        let kill = async |signal: &str| kill(client, &id, signal).await;
        match session.carry(&requests, &mut responses, kill).await? {
            End::Exit(code) => return Ok(code as u8),
            End::Detached => return Ok(0),
            End::Signal(name) => return Ok(signals::exit_code(name)),
            End::Lost(status) => match again(client, &id, stdin, tty).await.map_err(|_| failure(status))? {
                Again::Ended(code) => return Ok(code as u8),
                Again::Joined(streams) => (requests, responses) = *streams,
            },
        }
    }
}

async fn open(client: &Client, id: &str, stdin: bool, tty: bool) -> anyhow::Result<Streams> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let terminal = if tty { terminal::size() } else { None };
    let first = AttachOpen { id: id.into(), stdin, stdout: true, stderr: true, logs: false, terminal };
    sender.send(attach_open(first)).await.context("the stream ended early")?;
    let mut responses = client.supervisor().await?.attach(ReceiverStream::new(receiver)).await.answer()?;
    match next(&mut responses).await?.and_then(|message| message.payload) {
        Some(attach_response::Payload::Attached(_)) => Ok((sender, responses)),
        _ => bail!("the supervisor did not confirm the attachment"),
    }
}

async fn kill(client: &Client, id: &str, signal: &str) {
    let request = KillContainerRequest { id: id.into(), signal: signal.into() };
    let result = match client.supervisor().await {
        Ok(mut supervisor) => supervisor.kill_container(request).await.answer().map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(signal, %error, "cannot pass a signal on");
    }
}

enum Again {
    Joined(Box<Streams>),
    Ended(i32),
}

/// After a lost connection: the container has its own keeper, so wait for the supervisor and join again.
async fn again(client: &Client, id: &str, stdin: bool, tty: bool) -> anyhow::Result<Again> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match once_more(client, id, stdin, tty).await {
            Ok(again) => return Ok(again),
            Err(error) if is_not_found(&error) || begun.elapsed() > PATIENCE => return Err(error),
            Err(error) => tracing::debug!(%error, "not yet attached again"),
        }
    }
}

async fn once_more(client: &Client, id: &str, stdin: bool, tty: bool) -> anyhow::Result<Again> {
    let answer = client.supervisor().await?.get_container(GetContainerRequest { id: id.into() }).await.answer()?;
    let state = answer.container.and_then(|container| container.state).unwrap_or_default();
    match state.status() {
        ContainerStatus::Running | ContainerStatus::Paused => {
            open(client, id, stdin, tty).await.map(|streams| Again::Joined(Box::new(streams)))
        }
        _ => Ok(Again::Ended(exit_code(&state))),
    }
}

/// Waits until an auto-removed container is gone, ten seconds at most.
pub async fn wait_removed(client: &Client, id: &str) {
    let wait = async {
        let request = WaitContainerRequest { id: id.into(), condition: WaitCondition::Removed.into() };
        client.supervisor().await?.wait_container(request).await.answer().map(|_| ())
    };
    let _: Result<anyhow::Result<()>, _> = tokio::time::timeout(Duration::from_secs(10), wait).await;
}

/// Docker's exit code for a start that failed: 127 no such command, 126 cannot be executed, else 125.
pub fn start_failure_code(error: &anyhow::Error) -> u8 {
    let reasons: Vec<&str> = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<rpc::Failure>())
        .map(|failure| failure.reason.as_str())
        .collect();
    let text = format!("{error:#}").to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if reasons.contains(&"COMMAND_NOT_FOUND") || has(&["executable file not found", "command not found"]) {
        console::exit::NOT_FOUND
    } else if reasons.contains(&"COMMAND_NOT_EXECUTABLE") || has(&["cannot execute", "exec format error"]) {
        console::exit::CANNOT_EXECUTE
    } else {
        console::exit::ENGINE
    }
}
