//! `pier.network.v1`.
use crate::refused;
use anyhow::{Result, ensure};
use api::network::v1::network_service_client::NetworkServiceClient;
use api::network::v1::*;
use rpc::Code;
use tonic::transport::Channel;

/// Networks, a namespace, an endpoint, and the refusals on the way.
pub async fn network(channel: Channel) -> Result<()> {
    let mut client = NetworkServiceClient::new(channel);
    let create = CreateNetworkRequest { name: "contract-net".into(), ..Default::default() };
    let network = client.create_network(create.clone()).await?.into_inner().network.unwrap_or_default();
    ensure!(network.id.len() == 64 && network.driver == "bridge" && network.subnets.len() == 1, "{network:?}");
    refused(client.create_network(create).await, Code::AlreadyExists, "NETWORK_EXISTS")?;
    let unknown = GetNetworkRequest { name: "contract-none".into() };
    refused(client.get_network(unknown).await, Code::NotFound, "NETWORK_NOT_FOUND")?;

    let key = CreateNamespaceRequest { key: "contract-ns".into(), ..Default::default() };
    let path = client.create_namespace(key.clone()).await?.into_inner().path;
    ensure!(client.create_namespace(key).await?.into_inner().path == path, "not idempotent");
    let attach = AttachRequest {
        network: "contract-net".into(),
        netns_path: path,
        owner: "contract-owner".into(),
        names: vec!["web".into()],
        ..Default::default()
    };
    let endpoint = client.attach(attach.clone()).await?.into_inner().endpoint.unwrap_or_default();
    ensure!(endpoint.addresses.len() == 1 && endpoint.interface_name == "eth0", "{endpoint:?}");
    let again = client.attach(attach).await?.into_inner().endpoint.unwrap_or_default();
    ensure!(again.id == endpoint.id, "a second Attach made a second endpoint");
    let remove = RemoveNetworkRequest { name: "contract-net".into(), force: false };
    refused(client.remove_network(remove.clone()).await, Code::FailedPrecondition, "NETWORK_IN_USE")?;

    let detach = DetachRequest { owner: "contract-owner".into(), ..Default::default() };
    ensure!(client.detach(detach.clone()).await?.into_inner().detached.len() == 1, "nothing detached");
    client.detach(detach).await?;
    let gone = RemoveNamespaceRequest { key: "contract-ns".into() };
    client.remove_namespace(gone.clone()).await?;
    client.remove_namespace(gone).await?;
    client.remove_network(remove.clone()).await?;
    refused(client.remove_network(remove).await, Code::NotFound, "NETWORK_NOT_FOUND")
}
