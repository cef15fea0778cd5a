//! What only a daemon can do: watch shims, restart by policy, remove by itself, and put things right at its start.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::events::Changes;
use crate::observe::chain;
use crate::recovery::Next;
use crate::{Error, Supervisor, blocking};

/// The watching part of `serve`.
pub struct Daemon {
    supervisor: Supervisor,
    watched: Arc<Mutex<HashSet<String>>>,
}

impl Daemon {
    /// Watches the containers of this supervisor.
    pub fn new(supervisor: Supervisor) -> Self {
        Self { supervisor, watched: Arc::default() }
    }

    /// Puts right what a crash left behind; no damaged record keeps it from returning.
    pub async fn recover(&self) -> Result<(), Error> {
        let this = self.supervisor.clone();
        blocking(move || this.store().sweep()).await?;
        for id in self.supervisor.store().ids()? {
            self.look_at(id);
        }
        Ok(())
    }

    /// Runs until it is dropped: sees shims that one-shot verbs start, too.
    pub async fn run(&self) -> Result<(), Error> {
        let shims = self.supervisor.store().shims();
        let changes = Changes::of(&[&shims])?;
        loop {
            for entry in std::fs::read_dir(&shims).map_err(Error::file("list", &shims))?.flatten() {
                if let Ok(id) = entry.file_name().into_string() {
                    self.look_at(id);
                }
            }
            changes.next().await?;
        }
    }

    /// Starts a watcher for the container unless there is one.
    fn look_at(&self, id: String) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if !watched.insert(id.clone()) {
            return;
        }
        let supervisor = self.supervisor.clone();
        let watched = Arc::clone(&self.watched);
        tokio::spawn(async move {
            loop {
                if let Err(error) = watch(&supervisor, &id).await {
                    match error {
                        Error::NotFound(_) => {}
                        error => {
                            tracing::warn!(id, error = %chain(&error), "container");
                            // Whatever it is, it is not asked for in a tight loop.
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
                // A shim that came between the end of the watch and now must not be missed.
                let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if supervisor.shim_pid(&id).is_none() {
                    watched.remove(&id);
                    return;
                }
            }
        });
    }
}

/// Until the container is down for good.
async fn watch(supervisor: &Supervisor, id: &str) -> Result<(), Error> {
    loop {
        if let Some(shim) = supervisor.shim_fd(id) {
            let shim = crate::watch_fd(shim, "watch a shim")?;
            tokio::select! {
                ended = shim.readable() => {
                    let _ = ended.map_err(Error::system("watch a shim"))?;
                }
                () = crate::health::watch(supervisor, id) => {}
            }
        }
        let next = on_thread(supervisor, id, Supervisor::settle).await?;
        if !act(supervisor, id, next).await? {
            return Ok(());
        }
    }
}

/// `true`: watch on.
async fn act(supervisor: &Supervisor, id: &str, mut next: Next) -> Result<bool, Error> {
    loop {
        match next {
            Next::Nothing => return Ok(supervisor.shim_pid(id).is_some()),
            Next::Remove => {
                on_thread(supervisor, id, |this, id| this.remove(id, false).map(|_| ())).await?;
                return Ok(false);
            }
            Next::Restart(delay) => {
                tokio::time::sleep(delay.max(Duration::from_millis(1))).await;
                next = on_thread(supervisor, id, Supervisor::restart_due).await?;
            }
        }
    }
}

async fn on_thread<T: Send + 'static>(
    supervisor: &Supervisor,
    id: &str,
    work: impl FnOnce(&Supervisor, &str) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let supervisor = supervisor.clone();
    let id = id.to_owned();
    blocking(move || work(&supervisor, &id)).await
}
