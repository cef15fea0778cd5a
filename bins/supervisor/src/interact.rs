//! Between this program's stdio and a process in a container.

use std::io::Read as _;

use supervisor::{Input, InputSender, Output, Streams, Supervisor};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::lifecycle::exit_code;
use crate::terminal;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exit(u8),
    /// By the detach keys.
    Detached,
    /// The connection broke: what became of the process must be asked for.
    Lost,
}

/// ctrl-p ctrl-q.
const DETACH: [u8; 2] = [0x10, 0x11];

/// Relays until the process ends.
pub async fn relay(
    supervisor: &Supervisor,
    id: &str,
    mut streams: Streams,
    stdin: bool,
    tty: bool,
) -> anyhow::Result<End> {
    let _raw = if tty && stdin { terminal::Raw::enter() } else { None };
    let mut input = streams.input();
    let mut typed = stdin.then(read_stdin);
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupt = Forward::new(SignalKind::interrupt())?;
    let mut terminate = Forward::new(SignalKind::terminate())?;
    loop {
        tokio::select! {
            output = streams.next() => match output? {
                Some(Output::Stdout(bytes)) => write(&mut std::io::stdout(), &bytes)?,
                Some(Output::Stderr(bytes)) => write(&mut std::io::stderr(), &bytes)?,
                Some(Output::Exit(exit)) => return Ok(End::Exit(exit_code(exit.code))),
                None => return Ok(End::Lost),
            },
            bytes = next_typed(&mut typed) => {
                if !forward_typed(bytes, &mut typed, &mut input, tty).await {
                    return Ok(End::Detached);
                }
            }
            _ = resized.recv(), if tty => {
                if let (Some(input), Some(size)) = (&mut input, terminal::size()) {
                    let _ = input.send(&Input::Resize(size)).await;
                }
            }
            () = interrupt.next() => interrupt.pass(supervisor, id, "INT"),
            () = terminate.next() => terminate.pass(supervisor, id, "TERM"),
        }
    }
}

/// `false`: the detach keys.
async fn forward_typed(
    bytes: Option<Vec<u8>>,
    typed: &mut Option<mpsc::Receiver<Vec<u8>>>,
    input: &mut Option<InputSender>,
    tty: bool,
) -> bool {
    let Some(sender) = input else { return true };
    match bytes {
        Some(bytes) if tty && bytes.windows(2).any(|pair| pair == DETACH) => return false,
        Some(bytes) => {
            let _ = sender.send(&Input::Stdin(bytes)).await;
        }
        None => {
            *typed = None;
            let _ = sender.send(&Input::CloseStdin).await;
        }
    }
    true
}

async fn next_typed(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// stdin has no readiness for plain files: a thread reads it, and is left behind at the end.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        let mut stdin = std::io::stdin().lock();
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn write(to: &mut impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// A signal of this program that belongs to the container.
struct Forward {
    signal: Signal,
}

impl Forward {
    fn new(kind: SignalKind) -> std::io::Result<Self> {
        Ok(Self { signal: signal(kind)? })
    }

    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    fn pass(&self, supervisor: &Supervisor, id: &str, name: &'static str) {
        let supervisor = supervisor.clone();
        let id = id.to_owned();
        tokio::task::spawn_blocking(move || supervisor.kill(&id, name));
    }
}
