//! Watches one tool through its health stream, which ends with the tool: then the tool is started again.
use super::Clients;
use crate::error::Error;
use crate::tools::Tool;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A tool that lived this long is healthy: the next start does not wait.
const STEADY: Duration = Duration::from_secs(10);

/// Runs for as long as the engine does.
pub async fn keep(clients: Clients, tool: Tool) {
    let mut wait = FIRST_WAIT;
    let mut told = String::new();
    loop {
        let begun = Instant::now();
        match clients.channel(tool).await {
            Ok(channel) => {
                told.clear();
                until_gone(channel).await;
                clients.remember(tool, None);
                tracing::warn!(tool = tool.name(), "the tool went away");
            }
            Err(error) => tell(tool, &error, &mut told),
        }
        if begun.elapsed() > STEADY {
            wait = FIRST_WAIT;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

// Once: the tries go on for as long as it is missing.
fn tell(tool: Tool, error: &Error, told: &mut String) {
    let failure = error.failure();
    let text = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
    if text != *told {
        tracing::warn!(tool = tool.name(), error = %text, hint = %failure.hint, "the tool is not there");
        *told = text;
    }
}

// The stream has no end of its own: it breaks when the connection does.
async fn until_gone(channel: Channel) {
    let request = HealthCheckRequest { service: String::new() };
    let Ok(answer) = HealthClient::new(channel).watch(request).await else { return };
    let mut stream = answer.into_inner();
    while let Ok(Some(_)) = stream.message().await {}
}
