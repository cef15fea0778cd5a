//! Info and version.
use crate::engine::{Engine, SERVICES};
use crate::host;
use crate::tools::Tool;
use api::distribution::v1::ListImagesRequest;
use api::engine::v1::{InfoResponse, ToolStatus, VersionResponse};
use api::network::v1::{Endpoint, ListEndpointsRequest, PortMapping};
use futures::future::join_all;

/// This engine, its host and its tools; what does not answer is a warning.
pub async fn info(engine: &Engine) -> InfoResponse {
    let clients = engine.clients();
    let (supervisor, distribution, images, endpoints, tools) = tokio::join!(
        clients.supervisor_info(api::supervisor::v1::InfoRequest {}),
        clients.distribution_info(api::distribution::v1::InfoRequest {}),
        clients.image_list(ListImagesRequest::default()),
        clients.endpoint_list(ListEndpointsRequest::default()),
        join_all(Tool::ALL.map(|tool| status(engine, tool))),
    );
    let mut warnings = Vec::new();
    let supervisor = supervisor.map_err(|e| warnings.push(e.to_string())).ok();
    let distribution = distribution.map_err(|e| warnings.push(e.to_string())).ok();
    let images = images.map_err(|e| warnings.push(e.to_string())).map_or(0, |i| i.images.len());
    let endpoints = endpoints.map_err(|e| warnings.push(e.to_string())).map_or_else(|()| Vec::new(), |e| e.endpoints);
    warnings.dedup();
    warnings.extend(endpoints.iter().filter_map(open_to_all));
    let (kernel, hostname, memory_bytes) = host::identity();
    let machine = host::machine();
    InfoResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        root: clients.root().display().to_string(),
        run: clients.run().display().to_string(),
        hostname,
        kernel,
        architecture: machine.architecture,
        cpus: machine.cpus,
        memory_bytes,
        supervisor,
        distribution,
        images: i64::try_from(images).unwrap_or(i64::MAX),
        tools,
        warnings,
    }
}

/// Ports that the host's firewall has no say in, at every address of the host.
fn open_to_all(endpoint: &Endpoint) -> Option<String> {
    let every = |port: &&PortMapping| matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
    let ports: Vec<String> = endpoint.ports.iter().filter(every).map(|port| port.host_port.to_string()).collect();
    let name = endpoint.names.first().unwrap_or(&endpoint.owner);
    (!ports.is_empty() && !endpoint.host_first).then(|| {
        format!(
            "{name} is published at every address of the host, past its firewall (port {}): publish at 127.0.0.1, or \
             on a network made with --opt host_first=true",
            ports.join(", ")
        )
    })
}

async fn status(engine: &Engine, tool: Tool) -> ToolStatus {
    let asked = engine.clients().serving(tool).await;
    ToolStatus {
        name: tool.name().into(),
        socket: engine.clients().socket(tool).display().to_string(),
        serving: asked.is_ok(),
        error: asked.err().map(|e| e.to_string()).unwrap_or_default(),
    }
}

/// Of this program and what it offers.
pub fn version() -> VersionResponse {
    let apis = SERVICES.iter().filter_map(|s| s.rsplit_once('.')).map(|(package, _)| package.to_string());
    VersionResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("PIER_COMMIT").unwrap_or_default().into(),
        rust_version: env!("CARGO_PKG_RUST_VERSION").into(),
        os: std::env::consts::OS.into(),
        architecture: host::machine().architecture,
        kernel: host::identity().0,
        apis: apis.collect(),
    }
}
