//! `pier info`

use api::engine::v1::{InfoRequest, InfoResponse};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use console::Template;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// "json", or a template such as {{.Containers}}
    #[arg(short, long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let info = client.engine().await?.info(InfoRequest {}).await.answer()?;
        match self.format.as_deref() {
            None | Some("") => {
                text(&info).iter().try_for_each(say)?;
                warn(&info.warnings);
            }
            Some("json") => console::print_json_line(&document(&info))?,
            Some(template) => say(Template::parse(template)?.render(&document(&info))?)?,
        }
        Ok(0)
    }
}

fn text(info: &InfoResponse) -> Vec<String> {
    let supervisor = info.supervisor.clone().unwrap_or_default();
    let distribution = info.distribution.clone().unwrap_or_default();
    let mut lines = vec![
        format!("Containers: {}", supervisor.containers),
        format!(" Running: {}", supervisor.running),
        format!(" Paused: {}", supervisor.paused),
        format!(" Stopped: {}", supervisor.stopped),
        format!("Images: {}", info.images),
        format!("Server Version: {}", info.version),
        format!("Storage Driver: {}", distribution.snapshotter),
        format!("Cgroup Version: {}", supervisor.cgroup_version),
        format!("Default Runtime: {}", supervisor.default_runtime),
        format!("Kernel Version: {}", info.kernel),
        format!("Architecture: {}", info.architecture),
        format!("CPUs: {}", info.cpus),
        format!("Total Memory: {}", console::human_size(info.memory_bytes)),
        format!("Name: {}", info.hostname),
        format!("Root Dir: {}", info.root),
        format!("Run Dir: {}", info.run),
        "Tools:".into(),
    ];
    for tool in &info.tools {
        let state = if tool.serving { "serving" } else { "not serving" };
        lines.push(format!(" {}: {state} at {} {}", tool.name, tool.socket, tool.error).trim_end().to_owned());
    }
    lines
}

fn document(info: &InfoResponse) -> Value {
    let supervisor = info.supervisor.clone().unwrap_or_default();
    let distribution = info.distribution.clone().unwrap_or_default();
    json!({
        "ID": info.hostname, "Containers": supervisor.containers, "ContainersRunning": supervisor.running,
        "ContainersPaused": supervisor.paused, "ContainersStopped": supervisor.stopped, "Images": info.images,
        "Driver": distribution.snapshotter, "CgroupVersion": supervisor.cgroup_version,
        "DefaultRuntime": supervisor.default_runtime, "KernelVersion": info.kernel,
        "Architecture": info.architecture, "NCPU": info.cpus, "MemTotal": info.memory_bytes, "Name": info.hostname,
        "ServerVersion": info.version, "RootDir": info.root, "RunDir": info.run, "OSType": "linux",
        "Tools": info.tools.iter().map(|tool| json!({
            "Name": tool.name, "Socket": tool.socket, "Serving": tool.serving, "Error": tool.error,
        })).collect::<Vec<_>>(),
        "Warnings": info.warnings,
    })
}
