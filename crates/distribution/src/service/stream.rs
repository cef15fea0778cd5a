//! Server streams: work runs in a task of its own, which is ended when the client goes away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::types::v1::Progress;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::convert;
use crate::error::Result;
use crate::progress::Reporter;

/// Messages of a task. Progress is thinned out where it is made, so the queue stays short without a bound.
pub struct Streaming<T> {
    messages: UnboundedReceiver<Result<T, Status>>,
    task: JoinHandle<()>,
}

/// Sends one message of a stream; a client that has gone does not matter to the sender.
pub type Send<T> = Arc<dyn Fn(T) + std::marker::Send + Sync>;

/// How progress and the result become messages.
type Wrap<T, R> = (fn(Progress) -> T, fn(R) -> T);

impl<T: std::marker::Send + 'static> Streaming<T> {
    /// Progress, then one result or error.
    pub fn run<R, F>(wrap: Wrap<T, R>, work: impl FnOnce(Reporter) -> F + std::marker::Send + 'static) -> Self
    where
        F: Future<Output = Result<R>> + std::marker::Send + 'static,
        R: std::marker::Send + 'static,
    {
        let (progress, result) = wrap;
        Self::items(move |send: Send<T>| {
            let reports = send.clone();
            let work = work(Reporter::new(move |update| reports(progress(convert::progress(update)))));
            async move {
                let done = work.await?;
                send(result(done));
                Ok(())
            }
        })
    }

    /// Any number of messages, then the end or an error.
    pub fn items<F>(work: impl FnOnce(Send<T>) -> F + std::marker::Send + 'static) -> Self
    where
        F: Future<Output = Result<()>> + std::marker::Send + 'static,
    {
        let (sender, messages) = unbounded_channel();
        let items = sender.clone();
        let work = work(Arc::new(move |item| drop(items.send(Ok(item)))));
        let task = tokio::spawn(async move {
            if let Err(error) = work.await {
                let _ = sender.send(Err(rpc::status(&error)));
            }
        });
        Self { messages, task }
    }
}

impl<T> tokio_stream::Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context)
    }
}

impl<T> Drop for Streaming<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
