//! `pier update`

use anyhow::bail;
use api::engine::v1::UpdatePublishedPortsRequest;
use api::network::v1::PortMapping;
use api::supervisor::v1::UpdateContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;
use crate::flags::{policy, port};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// no, always, unless-stopped, on-failure[:MAX]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Publish one more port: [[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<String>,
    /// Withdraw a published port
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let policy = self.restart.as_deref().map(policy::restart).transpose()?;
        let (add, remove) = (ports(&self.publish_add)?, ports(&self.publish_rm)?);
        if policy.is_none() && add.is_empty() && remove.is_empty() {
            bail!("nothing to change: give --restart, --publish-add or --publish-rm");
        }
        each(&self.containers, async |name| {
            if policy.is_some() {
                let request = UpdateContainerRequest { id: name.into(), restart: policy, ..Default::default() };
                client.supervisor().await?.update_container(request).await.answer()?;
            }
            if !add.is_empty() || !remove.is_empty() {
                let (add, remove) = (add.clone(), remove.clone());
                let request = UpdatePublishedPortsRequest { container: name.into(), add, remove };
                client.engine().await?.update_published_ports(request).await.answer()?;
            }
            Ok(name.to_owned())
        })
        .await
    }
}

fn ports(texts: &[String]) -> anyhow::Result<Vec<PortMapping>> {
    Ok(texts.iter().map(|text| port::publish(text)).collect::<anyhow::Result<Vec<_>>>()?.concat())
}
