//! `pier.supervisor.v1`.
use crate::refused;
use anyhow::{Context, Result, ensure};
use api::supervisor::v1::supervisor_service_client::SupervisorServiceClient;
use api::supervisor::v1::*;
use rpc::Code;
use std::path::Path;
use tonic::transport::Channel;

/// A container's whole life on the root filesystem at `rootfs`, with the OCI runtime `runtime`.
pub async fn supervisor(channel: Channel, rootfs: &Path, runtime: &str) -> Result<()> {
    let mut client = SupervisorServiceClient::new(channel);
    let unknown = StartContainerRequest { id: "contract-none".into(), ..Default::default() };
    refused(client.start_container(unknown).await, Code::NotFound, "CONTAINER_NOT_FOUND")?;

    let args = ["sh", "-c", "echo out; echo err >&2; read line; exit 7"].map(String::from);
    let mut spec = oci::runtime::default_spec(&args)?;
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_path_buf());
    }
    let spec = ContainerSpec {
        name: "contract-container".into(),
        oci_spec: serde_json::to_vec(&spec)?.into(),
        runtime: runtime.into(),
        open_stdin: true,
        ..Default::default()
    };
    let create = CreateContainerRequest { spec: Some(spec) };
    let made = client.create_container(create.clone()).await?.into_inner().container.context("container")?;
    let id = made.spec.context("spec")?.id;
    ensure!(oci::name::is_id(&id), "id {id:?}");
    refused(client.create_container(create).await, Code::AlreadyExists, "NAME_IN_USE")?;
    refused(
        client.create_container(CreateContainerRequest { spec: None }).await,
        Code::InvalidArgument,
        "SPEC_INVALID",
    )?;

    client.start_container(StartContainerRequest { id: id.clone(), ..Default::default() }).await?;
    let state = state(&mut client, "contract-container").await?;
    ensure!(state.status() == ContainerStatus::Running && state.pid > 0, "{state:?}");
    let remove = RemoveContainerRequest { id: id.clone(), force: false };
    refused(client.remove_container(remove.clone()).await, Code::FailedPrecondition, "CONTAINER_RUNNING")?;
    client.kill_container(KillContainerRequest { id: id.clone(), signal: "KILL".into() }).await?;
    let wait = WaitContainerRequest { id: id.clone(), condition: WaitCondition::NotRunning as i32 };
    let exit = client.wait_container(wait).await?.into_inner();
    ensure!(exit.exit_code == 137 && exit.exit_signal == 9, "{exit:?}");
    let kill = KillContainerRequest { id: id.clone(), signal: String::new() };
    refused(client.kill_container(kill).await, Code::FailedPrecondition, "CONTAINER_NOT_RUNNING")?;
    client.remove_container(remove).await?;
    let get = GetContainerRequest { id };
    refused(client.get_container(get).await, Code::NotFound, "CONTAINER_NOT_FOUND")
}

async fn state(client: &mut SupervisorServiceClient<Channel>, id: &str) -> Result<ContainerState> {
    let answer = client.get_container(GetContainerRequest { id: id.into() }).await?.into_inner();
    answer.container.and_then(|c| c.state).context("state")
}
