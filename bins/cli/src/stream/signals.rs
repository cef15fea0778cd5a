//! Signals that this process passes on to the container, by name.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};

/// Name and number of what is passed on; SIGKILL and SIGSTOP cannot be caught, SIGCHLD and SIGPIPE are this process's.
const PROXIED: [(&str, i32); 8] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCONT", 18),
];

/// Names of the signals that arrive from now on.
pub fn proxied() -> std::io::Result<Receiver<&'static str>> {
    forward(&PROXIED)
}

/// The signals that end this process.
pub fn ending() -> std::io::Result<Receiver<&'static str>> {
    forward(&[("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGTERM", 15)])
}

/// A shell's exit code for a process that a signal of this name ended.
pub fn exit_code(name: &str) -> u8 {
    PROXIED.iter().find(|(known, _)| *known == name).map_or(1, |(_, number)| 128 + *number as u8)
}

fn forward(which: &[(&'static str, i32)]) -> std::io::Result<Receiver<&'static str>> {
    let (sender, receiver) = channel(16);
    for (name, number) in which.iter().copied() {
        let mut stream = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Changes of the terminal's size.
pub fn window_changes() -> std::io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::window_change())
}
