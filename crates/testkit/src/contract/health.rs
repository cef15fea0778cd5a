//! What every socket offers.
use anyhow::{Result, ensure};
use tonic::transport::Channel;

/// Health says SERVING for the whole server, and reflection lists the service.
pub async fn health_and_reflection(channel: Channel, service: &str) -> Result<()> {
    ensure!(rpc::health(channel.clone(), "").await?, "not SERVING");
    let listed = services(channel).await?;
    ensure!(listed.iter().any(|s| s == service), "{service} is not among {listed:?}");
    Ok(())
}

/// The services that gRPC server reflection (v1) names.
async fn services(channel: Channel) -> Result<Vec<String>> {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(futures::stream::iter([ask])).await?.into_inner();
    let answer = answers.message().await?.and_then(|a| a.message_response);
    match answer {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        other => anyhow::bail!("reflection answered {other:?}"),
    }
}
