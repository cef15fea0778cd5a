//! Drivers that serve `pier.network.driver.v1` on `<run>/network/drivers/<name>.sock`.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::network_driver::v1 as pb;
use api::network_driver::v1::driver_service_client::DriverServiceClient;
use ipnet::IpNet;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Remote;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, Route};
use crate::plan::Change;

/// A driver by its socket.
pub(super) struct Plugin {
    name: String,
    socket: PathBuf,
    limit: Duration,
}

impl Plugin {
    /// The driver of that name, if there is a socket for it and somebody answers.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub(super) fn find(config: &Config, name: &str, limit: Duration) -> Result<Option<Self>> {
        let socket = config.drivers().join(format!("{name}.sock"));
        if name.contains('/') || !socket.exists() {
            return Ok(None);
        }
        let plugin = Self { name: name.to_owned(), socket, limit };
        plugin.call("GetInfo", async |mut client| client.get_info(pb::GetInfoRequest {}).await)?;
        Ok(Some(plugin))
    }

    fn failed(&self, step: &str, why: String) -> Error {
        Error::Foreign { driver: self.name.clone(), step: step.to_owned(), why }
    }

    fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        step: &str,
        work: impl FnOnce(DriverServiceClient<Channel>) -> F,
    ) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.failed(step, error.to_string()))?;
        let call = async {
            let channel = rpc::connect(&self.socket, self.limit).await.map_err(|failure| failure.to_string())?;
            let answer = work(DriverServiceClient::new(channel)).await;
            answer.map(Response::into_inner).map_err(|status| status.message().to_owned())
        };
        let late = || format!("it did not answer within {:?}", self.limit);
        let answer = runtime.block_on(async { tokio::time::timeout(self.limit, call).await });
        answer.unwrap_or_else(|_| Err(late())).map_err(|why| self.failed(step, why))
    }

    /// What the driver chose, read into the endpoint.
    fn take(&self, answer: &pb::AttachResponse, endpoint: &Endpoint) -> Result<Endpoint> {
        let mut whole = endpoint.clone();
        let bad = |text: &String| self.failed("Attach", format!("{text:?} is no address"));
        let address = |text: &String| text.parse::<IpNet>().map_err(|_| bad(text));
        let gateway = |text: &String| text.parse::<IpAddr>().map_err(|_| bad(text));
        if !answer.addresses.is_empty() {
            whole.addresses = answer.addresses.iter().map(address).collect::<Result<_>>()?;
        }
        whole.gateways = answer.gateways.iter().map(gateway).collect::<Result<_>>()?;
        if whole.no_default_route {
            whole.gateways.clear();
        }
        for route in &answer.routes {
            let route: Route = format!("{},{}", route.destination, route.gateway).parse()?;
            whole.routes.push(route);
        }
        if !answer.mac_address.is_empty() {
            crate::ipam::parse_mac(&answer.mac_address)?;
            whole.mac_address = answer.mac_address.to_ascii_lowercase();
        }
        Ok(whole)
    }
}

impl Remote for Plugin {
    fn create(&self, network: &Network) -> Result<()> {
        let subnet = |subnet: &crate::model::Subnet| pb::Subnet {
            subnet: subnet.subnet.to_string(),
            gateway: subnet.gateway.to_string(),
        };
        let request = pb::CreateNetworkRequest {
            network_id: network.id.clone(),
            name: network.name.clone(),
            subnets: network.subnets.iter().map(subnet).collect(),
            internal: network.internal,
            options: network.options.clone().into_iter().collect(),
        };
        self.call("CreateNetwork", async |mut client| client.create_network(request).await).map(drop)
    }

    fn remove(&self, network: &Network) -> Result<()> {
        let request = pb::RemoveNetworkRequest { network_id: network.id.clone() };
        self.call("RemoveNetwork", async |mut client| client.remove_network(request).await).map(drop)
    }

    fn attach(&self, network: &Network, endpoint: &Endpoint) -> Result<(Endpoint, Vec<Change>)> {
        let request = pb::AttachRequest {
            network_id: network.id.clone(),
            endpoint_id: endpoint.id.clone(),
            netns_path: endpoint.netns_path.to_string_lossy().into_owned(),
            interface_name: endpoint.interface.clone(),
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            mac_address: endpoint.mac_address.clone(),
            mtu: endpoint.mtu.or(network.mtu()).unwrap_or(0),
        };
        let answer = self.call("Attach", async |mut client| client.attach(request).await)?;
        let whole = self.take(&answer, endpoint)?;
        let changes = if answer.link.is_empty() { Vec::new() } else { super::adopt(answer.link, &whole) };
        Ok((whole, changes))
    }

    fn detach(&self, network: &Network, endpoint: &Endpoint) -> Result<()> {
        let request = pb::DetachRequest {
            network_id: network.id.clone(),
            endpoint_id: endpoint.id.clone(),
            netns_path: endpoint.netns_path.to_string_lossy().into_owned(),
            interface_name: endpoint.interface.clone(),
        };
        self.call("Detach", async |mut client| client.detach(request).await).map(drop)
    }
}
