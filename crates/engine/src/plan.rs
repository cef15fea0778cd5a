//! Composed verbs as steps: each says how it is undone before it is done; when one fails, what came before is undone in
//! reverse. Undoing is idempotent, so a step that failed half-way (or in silence) is undone too.
use crate::error::Error;
use futures::future::BoxFuture;

type Undo = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), Error>> + Send>;

/// A composed verb under way.
pub struct Plan {
    action: String,
    done: Vec<(&'static str, Undo)>,
}

impl Plan {
    /// `action` starts the message of a failure: "create container web".
    pub fn new(action: impl Into<String>) -> Self {
        Self { action: action.into(), done: Vec::new() }
    }

    /// Does a step that leaves nothing behind.
    pub async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        work.await.map_err(|cause| self.failed(name, cause))
    }

    /// Does a step that `undo` takes back.
    pub async fn undoable<T, U, F>(
        &mut self,
        name: &'static str,
        undo: U,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error>
    where
        U: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.done.push((name, Box::new(move || Box::pin(undo()))));
        self.step(name, work).await
    }

    /// The failure of a step, with its name.
    pub fn failed(&self, step: &'static str, cause: Error) -> Error {
        Error::Step { action: self.action.clone(), step, cause: Box::new(cause) }
    }

    /// Ends the verb: on failure everything is undone, the last step first; what cannot be undone is logged and left
    /// to the next sweep.
    pub async fn finish<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            for (step, undo) in self.done.into_iter().rev() {
                match undo().await {
                    Err(error) if !error.is_not_found() => {
                        tracing::warn!(action = %self.action, step, error = %error, "could not be undone");
                    }
                    _ => tracing::debug!(action = %self.action, step, "undone"),
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<String>>>;

    async fn three_steps(fail_at: usize, log: Log) -> Result<(), Error> {
        let mut plan = Plan::new("make thing");
        let result = async {
            for (i, name) in ["one", "two", "three"].into_iter().enumerate() {
                let undone = log.clone();
                let undo = move || async move {
                    undone.lock().unwrap().push(format!("undo {name}"));
                    // A step that was never done for real says so; that is no reason to stop.
                    if i == fail_at { Err(Error::Canceled) } else { Ok(()) }
                };
                let work = async {
                    log.lock().unwrap().push(format!("do {name}"));
                    if i == fail_at { Err(Error::invalid("x", i, "no")) } else { Ok(()) }
                };
                plan.undoable(name, undo, work).await?;
            }
            Ok(())
        }
        .await;
        plan.finish(result).await
    }

    #[tokio::test]
    async fn undoes_in_reverse_and_goes_on_past_errors() {
        for fail_at in 0..3 {
            let log = Log::default();
            let error = three_steps(fail_at, log.clone()).await.unwrap_err();
            let names = ["one", "two", "three"];
            assert!(error.to_string().starts_with(&format!("make thing: step {:?}: ", names[fail_at])), "{error}");
            let mut expected: Vec<String> = names[..=fail_at].iter().map(|n| format!("do {n}")).collect();
            expected.extend(names[..=fail_at].iter().rev().map(|n| format!("undo {n}")));
            assert_eq!(*log.lock().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn undoes_nothing_when_all_goes_well() {
        let log = Log::default();
        three_steps(9, log.clone()).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["do one", "do two", "do three"]);
    }
}
