//! Waiting for a container's end.

use oci::shim::{Kind, Reply, Request};

use crate::events::Changes;
use crate::status::Observed;
use crate::{Error, Supervisor, blocking};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does not run.
    NotRunning,
    /// The end of the run that is going on, or of the next one.
    NextExit,
    /// Its record is gone.
    Removed,
}

impl Supervisor {
    /// Returns when the condition holds, with the last known state.
    pub async fn wait(&self, reference: &str, condition: Condition) -> Result<Observed, Error> {
        let id = self.store().resolve(reference)?;
        match condition {
            Condition::NotRunning => self.wait_end(&id).await,
            Condition::NextExit => self.wait_next(&id).await,
            Condition::Removed => self.wait_removed(&id).await,
        }
    }

    /// Until the current run has ended and that is on disk.
    pub(crate) async fn wait_end(&self, id: &str) -> Result<Observed, Error> {
        loop {
            let this = self.clone();
            let owned = id.to_owned();
            let seen = blocking(move || this.observe(&owned)).await?;
            if !seen.status.is_live() {
                return Ok(seen);
            }
            if self.wait_frame(id).await.is_err() {
                // The shim went away without a word: has it been killed?
                let this = self.clone();
                let owned = id.to_owned();
                blocking(move || {
                    this.wait_shim_gone(&owned, 5)?;
                    this.settle(&owned)
                })
                .await?;
            }
        }
    }

    /// Until the shim says that the exit is on disk.
    async fn wait_frame(&self, id: &str) -> Result<(), Error> {
        let this = self.clone();
        let owned = id.to_owned();
        let connection = blocking(move || {
            let mut connection = this.connect(&owned)?;
            match connection.request(&Request::Wait)? {
                Reply::Ok => Ok(connection),
                _ => Err(connection.broken("refused to wait".into())),
            }
        })
        .await?;
        let mut stream = crate::attach::ShimStream::new(id, connection)?;
        match stream.frame().await? {
            Some((Kind::Exit, _)) => Ok(()),
            _ => Err(Error::Shim { id: id.to_owned(), message: "it closed the connection".into() }),
        }
    }

    async fn wait_next(&self, id: &str) -> Result<Observed, Error> {
        let dir = self.store().container(id);
        let changes = Changes::of(&[&dir, &self.store().shims()])?;
        let before = self.store().state(id)?.run;
        let running = self.observe(id)?.status.is_live();
        if !running {
            while self.store().state(id)?.run == before {
                changes.next().await?;
            }
        }
        self.wait_end(id).await
    }

    async fn wait_removed(&self, id: &str) -> Result<Observed, Error> {
        let changes = Changes::of(&[&self.store().containers()])?;
        let mut last = self.observe(id)?;
        while self.store().container(id).is_dir() {
            last = self.observe(id).unwrap_or(last);
            changes.next().await?;
            // The exit that the removal follows is the one to tell.
            if let Ok(seen) = self.observe(id) {
                last = seen;
            }
        }
        Ok(last)
    }
}
