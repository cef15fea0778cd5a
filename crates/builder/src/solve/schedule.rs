//! The order of things: every vertex waits for its inputs only, a few run at once, one failure ends all.

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Cache, Context, Flights, Op};
use crate::error::Error;
use crate::graph::Vertex;
use crate::progress::{Event, Sink, Status, VertexUpdate, now_nanos};

/// A vertex with the operation behind it.
pub struct Task<R> {
    /// Where it stands in the graph.
    pub vertex: Vertex,
    /// What it does.
    pub op: Arc<dyn Op<R>>,
}

/// What a solved graph leaves.
#[derive(Debug)]
pub struct Outcome<R> {
    /// Outputs by digest of the vertex.
    pub results: HashMap<String, Arc<Vec<R>>>,
    /// Cacheable operations that ran.
    pub executed: u32,
    /// Cacheable operations whose results were known.
    pub cached: u32,
}

/// Runs tasks.
pub struct Solver<R> {
    cache: Arc<dyn Cache<R>>,
    flights: Arc<Flights>,
    slots: Arc<Semaphore>,
}

type Inputs<R> = Shared<BoxFuture<'static, Option<Arc<Vec<R>>>>>;

impl<R: Clone + Send + Sync + 'static> Solver<R> {
    /// A solver that runs at most `parallelism` operations at once.
    pub fn new(cache: Arc<dyn Cache<R>>, flights: Arc<Flights>, parallelism: usize) -> Self {
        Self { cache, flights, slots: Arc::new(Semaphore::new(parallelism.max(1))) }
    }

    /// Runs `tasks`, inputs before their users in the list. On failure the first error is returned once every other
    /// operation has stopped and cleaned up.
    pub async fn solve(
        &self,
        tasks: Vec<Task<R>>,
        sink: &Sink,
        cancel: &CancellationToken,
    ) -> Result<Outcome<R>, Error> {
        let counts = Arc::new(Counts::default());
        let cancel = cancel.child_token();
        let mut waiting: HashMap<String, Inputs<R>> = HashMap::new();
        let mut running = JoinSet::new();
        for task in tasks {
            let inputs: Option<Vec<(Inputs<R>, i64)>> =
                task.vertex.inputs.iter().map(|edge| Some((waiting.get(&edge.digest)?.clone(), edge.index))).collect();
            let inputs =
                inputs.ok_or_else(|| Error::Definition(format!("an input of {} is missing", task.vertex.name)))?;
            let (sender, receiver) = oneshot::channel();
            waiting.insert(task.vertex.digest.clone(), receiver.map(Result::ok).boxed().shared());
            let step = Step {
                vertex: task.vertex,
                op: task.op,
                cache: Arc::clone(&self.cache),
                flights: Arc::clone(&self.flights),
                slots: Arc::clone(&self.slots),
                counts: Arc::clone(&counts),
                sink: sink.clone(),
                cancel: cancel.clone(),
            };
            running.spawn(async move {
                let outputs = step.go(inputs).await?;
                // Nobody may be waiting.
                drop(sender.send(outputs));
                Ok(())
            });
        }
        finish(&mut running, &cancel).await?;
        let mut results = HashMap::new();
        for (digest, outputs) in waiting {
            if let Some(outputs) = outputs.await {
                results.insert(digest, outputs);
            }
        }
        Ok(Outcome {
            results,
            executed: counts.executed.load(Ordering::Relaxed),
            cached: counts.cached.load(Ordering::Relaxed),
        })
    }
}

/// Waits for all; the first failure cancels the others and is what is returned.
async fn finish(running: &mut JoinSet<Result<(), Error>>, cancel: &CancellationToken) -> Result<(), Error> {
    let mut first: Option<Error> = None;
    while let Some(joined) = running.join_next().await {
        let result = joined.unwrap_or_else(|error| Err(Error::Panic(error.to_string())));
        if let Err(error) = result {
            cancel.cancel();
            if first.as_ref().is_none_or(|known| known.is_canceled() && !error.is_canceled()) {
                first = Some(error);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

#[derive(Debug, Default)]
struct Counts {
    executed: AtomicU32,
    cached: AtomicU32,
}

struct Step<R> {
    vertex: Vertex,
    op: Arc<dyn Op<R>>,
    cache: Arc<dyn Cache<R>>,
    flights: Arc<Flights>,
    slots: Arc<Semaphore>,
    counts: Arc<Counts>,
    sink: Sink,
    cancel: CancellationToken,
}

impl<R: Clone + Send + Sync + 'static> Step<R> {
    async fn go(self, inputs: Vec<(Inputs<R>, i64)>) -> Result<Arc<Vec<R>>, Error> {
        let Some(inputs) = self.inputs(inputs).await? else {
            self.tell(Status::Canceled, "", 0);
            return Err(Error::Canceled);
        };
        let started = now_nanos();
        match self.result(&inputs, started).await {
            Ok(outputs) => Ok(Arc::new(outputs)),
            Err(error) if error.is_canceled() => {
                self.tell(Status::Canceled, "", started);
                Err(error)
            }
            Err(error) => {
                self.tell(Status::Failed, &chain(&error), started);
                let (name, location) = (self.vertex.name.clone(), self.vertex.location.clone());
                Err(Error::Step { name, location: location.map(Box::new), cause: Box::new(error) })
            }
        }
    }

    /// Waits for the inputs; none when one of them failed or the build was cancelled.
    async fn inputs(&self, inputs: Vec<(Inputs<R>, i64)>) -> Result<Option<Vec<R>>, Error> {
        let mut ready = Vec::new();
        for (input, index) in inputs {
            let outputs = tokio::select! {
                outputs = input => outputs,
                () = self.cancel.cancelled() => None,
            };
            let Some(outputs) = outputs else { return Ok(None) };
            let output = usize::try_from(index).ok().and_then(|index| outputs.get(index));
            let missing = || Error::Definition(format!("{} needs output {index} that is not there", self.vertex.name));
            ready.push(output.cloned().ok_or_else(missing)?);
        }
        Ok(Some(ready))
    }

    async fn result(&self, inputs: &[R], started: i64) -> Result<Vec<R>, Error> {
        let key = self.op.key(inputs).await?;
        if !self.op.cacheable() {
            return self.run(inputs, key, started).await;
        }
        let _only_us = tokio::select! {
            guard = self.flights.enter(&key) => guard,
            () = self.cancel.cancelled() => return Err(Error::Canceled),
        };
        if !self.vertex.ignore_cache
            && let Some(outputs) = self.cache.lookup(&key).await?
        {
            self.counts.cached.fetch_add(1, Ordering::Relaxed);
            self.tell(Status::Cached, "", started);
            return Ok(outputs);
        }
        let outputs = self.run(inputs, key.clone(), started).await?;
        self.counts.executed.fetch_add(1, Ordering::Relaxed);
        self.cache.record(&key, &self.vertex.name, &outputs).await?;
        Ok(outputs)
    }

    async fn run(&self, inputs: &[R], key: super::Key, started: i64) -> Result<Vec<R>, Error> {
        let _slot = tokio::select! {
            slot = self.slots.acquire() => slot.map_err(|_| Error::Canceled)?,
            () = self.cancel.cancelled() => return Err(Error::Canceled),
        };
        if self.cancel.is_cancelled() {
            return Err(Error::Canceled);
        }
        self.tell(Status::Started, "", started);
        let context =
            Context { digest: self.vertex.digest.clone(), key, sink: self.sink.clone(), cancel: self.cancel.clone() };
        let outputs = self.op.run(inputs, &context).await?;
        self.tell(Status::Done, "", started);
        Ok(outputs)
    }

    fn tell(&self, status: Status, error: &str, started: i64) {
        self.sink.send(Event::Vertex(VertexUpdate {
            digest: self.vertex.digest.clone(),
            name: self.vertex.name.clone(),
            inputs: self.vertex.inputs.iter().map(|edge| edge.digest.clone()).collect(),
            status,
            error: error.to_owned(),
            started,
            completed: if status == Status::Started { 0 } else { now_nanos() },
        }));
    }
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
