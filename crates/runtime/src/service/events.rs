//! `Events`: the lines of `pier-runtime events` as messages.

use std::time::Duration;

use api::runtime::v1::EventsResponse;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Service, child, failed};
use crate::{Error, convert};

type Event = Result<EventsResponse, Status>;

impl Service {
    /// A child that watches until the container ends or the caller goes away.
    pub(super) fn follow(&self, id: String, interval: Duration) -> Result<impl Stream<Item = Event> + use<>, Status> {
        let mut command = self.command("events");
        command.arg("--interval").arg(format!("{}ms", interval.as_millis())).arg(&id);
        let watcher = command.kill_on_drop(true).spawn();
        let watcher = watcher.map_err(|e| failed(Error::step("cannot run the runtime", e)))?;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            tokio::select! {
                // The caller's going away drops the child, which kills it.
                () = sender.closed() => {}
                () = forward(watcher, &id, &sender) => {}
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

async fn forward(mut watcher: Child, id: &str, sender: &Sender<Event>) {
    if let Some(stdout) = watcher.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Some(event) = convert::event(&line) else { continue };
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
    }
    let end = watcher.wait_with_output().await.map_err(|e| failed(Error::step("cannot wait for the runtime", e)));
    let end = end.and_then(|o| child::check(o.status.success(), &String::from_utf8_lossy(&o.stderr), id));
    if let Err(status) = end {
        let _ = sender.send(Err(status)).await;
    }
}
