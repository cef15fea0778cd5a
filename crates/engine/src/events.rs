//! Events: all tools' in one stream for callers, and the engine's own reaction to containers that end.
use crate::container::{network, stop};
use crate::engine::Engine;
use crate::error::Error;
use api::engine::v1::StreamEventsResponse;
use api::types::v1::{Event, EventFilter, StringList};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

const BUFFER: usize = 256;
/// Actions of the supervisor's events.
const HEALTHY: &str = "health_status: healthy";
const UNHEALTHY: &str = "health_status: unhealthy";
const RETRY: Duration = Duration::from_millis(200);

/// Every tool's events, as they come. A tool that is not there is left out; the stream ends when all have ended.
pub fn merged(engine: &Engine, filter: EventFilter) -> mpsc::Receiver<Result<StreamEventsResponse, Status>> {
    let (sender, receiver) = mpsc::channel(BUFFER);
    macro_rules! forward {
        ($package:ident, $open:ident) => {{
            let (clients, filter, sender) = (engine.clients().clone(), filter.clone(), sender.clone());
            tokio::spawn(async move {
                let request = api::$package::v1::StreamEventsRequest { filter: Some(filter) };
                match clients.$open(request).await {
                    Ok(stream) => relay(stream, |r| r.event, &sender).await,
                    Err(error) => tracing::warn!(error = %error, "events"),
                }
            });
        }};
    }
    forward!(supervisor, supervisor_events);
    forward!(distribution, distribution_events);
    forward!(network, network_events);
    forward!(volume, volume_events);
    receiver
}

async fn relay<T>(
    mut stream: Streaming<T>,
    event: impl Fn(T) -> Option<Event>,
    sender: &mpsc::Sender<Result<StreamEventsResponse, Status>>,
) {
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = sender.closed() => return,
        };
        match message {
            Ok(Some(message)) => {
                if sender.send(Ok(StreamEventsResponse { event: event(message) })).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                tracing::warn!(error = %status, "an event stream broke");
                return;
            }
        }
    }
}

/// Runs for as long as the engine does: whenever a container ends, see to what is left of it. What was missed while
/// nobody listened is the sweep's.
pub async fn react(engine: Engine) {
    loop {
        if let Err(error) = follow(&engine).await {
            tracing::debug!(error = %error, "the supervisor's events");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(engine: &Engine) -> Result<(), Error> {
    let any = |values: &[&str]| StringList { values: values.iter().map(ToString::to_string).collect() };
    let filters =
        [("type".to_string(), any(&["container"])), ("event".to_string(), any(&["die", HEALTHY, UNHEALTHY]))].into();
    let filter = EventFilter { filters, ..Default::default() };
    let request = api::supervisor::v1::StreamEventsRequest { filter: Some(filter) };
    let mut stream = engine.clients().supervisor_events(request).await?;
    engine.sweep_soon();
    while let Ok(Some(message)) = stream.message().await {
        let Some(event) = message.event else { continue };
        match event.action.as_str() {
            "die" => drop(tokio::spawn(after_end(engine.clone(), event.id))),
            HEALTHY | UNHEALTHY => {
                // In the order of the events: the last word counts.
                if let Err(error) = network::set_health(engine, &event.id, event.action == HEALTHY).await {
                    tracing::warn!(container = %event.id, error = %error, "its health is not known to the network tool");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn after_end(engine: Engine, id: String) {
    if let Err(error) = stop::ended(&engine, &id).await {
        tracing::warn!(container = %id, error = %error, "after its end");
        engine.sweep_soon();
    }
}
