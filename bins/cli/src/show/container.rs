//! Rows of `ps`.

use api::engine::v1::{ContainerView, MountPoint};
use api::supervisor::v1::{Container, ContainerState, ContainerStatus};
use serde_json::{Value, json};

use super::listing::{Column, id};
use super::port;

/// Docker's columns.
pub const COLUMNS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

/// With `--size`.
pub const COLUMNS_WITH_SIZE: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
    ("SIZE", "Size"),
];

/// One row, with docker's keys.
pub fn row(view: &ContainerView, whole: bool, size: bool) -> Value {
    let container = view.container.clone().unwrap_or_default();
    let spec = container.spec.clone().unwrap_or_default();
    let state = container.state.clone().unwrap_or_default();
    let config = view.config.clone().unwrap_or_default();
    let exposed = config.network.as_ref().map(|network| network.expose.clone()).unwrap_or_default();
    let running = matches!(state.status(), ContainerStatus::Running | ContainerStatus::Paused);
    let networks: Vec<&str> = view.endpoints.iter().map(|endpoint| endpoint.network_name.as_str()).collect();
    let mut labels: Vec<String> = spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    json!({
        "ID": id(&spec.id, whole),
        "Image": if spec.image.is_empty() { config.image.clone() } else { spec.image.clone() },
        "Command": command(&container, whole),
        "CreatedAt": container.created_at,
        "RunningFor": console::human_ago(&container.created_at),
        "State": state_name(&state),
        "Status": status(&state),
        "Ports": if running { port::column(&view.endpoints, &exposed) } else { String::new() },
        "Names": spec.name,
        "Labels": labels.join(","),
        "Networks": networks.join(","),
        "Mounts": view.mounts.iter().map(mounted).collect::<Vec<_>>().join(","),
        "LocalVolumes": view.mounts.iter().filter(|mount| mount.driver == "local").count().to_string(),
        "Size": if size { console::human_size(view.size_rw_bytes.max(0).unsigned_abs()) } else { "0B".into() },
    })
}

/// A mount in one word: its volume, else what it shows, else where.
fn mounted(mount: &MountPoint) -> &str {
    let words = [&mount.name, &mount.source, &mount.target];
    words.into_iter().find(|word| !word.is_empty()).map_or("", String::as_str)
}

/// Arguments of the first process, from the OCI configuration.
pub fn arguments(container: &Container) -> Vec<String> {
    let Some(spec) = &container.spec else { return Vec::new() };
    let config: Value = serde_json::from_slice(&spec.oci_spec).unwrap_or_default();
    let arguments = config["process"]["args"].as_array();
    arguments.map(|all| all.iter().filter_map(Value::as_str).map(Into::into).collect()).unwrap_or_default()
}

fn command(container: &Container, whole: bool) -> String {
    let text = arguments(container).join(" ");
    if whole || text.chars().count() <= 20 {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(19).collect::<String>())
}

/// Docker's word for a state.
pub fn state_name(state: &ContainerState) -> &'static str {
    match state.status() {
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Removing => "removing",
        ContainerStatus::Dead => "dead",
        ContainerStatus::Created | ContainerStatus::Unspecified => "created",
    }
}

/// "Up 5 minutes (healthy)", "Exited (0) 3 seconds ago".
pub fn status(state: &ContainerState) -> String {
    let up = || format!("Up {}", console::human_ago(&state.started_at).trim_end_matches(" ago"));
    let code = exit_code(state);
    match state.status() {
        ContainerStatus::Running => match state.health.as_str() {
            "" | "none" => up(),
            "starting" => format!("{} (health: starting)", up()),
            health => format!("{} ({health})", up()),
        },
        ContainerStatus::Paused => format!("{} (Paused)", up()),
        ContainerStatus::Restarting => format!("Restarting ({code}) {}", console::human_ago(&state.finished_at)),
        ContainerStatus::Exited => format!("Exited ({code}) {}", console::human_ago(&state.finished_at)),
        ContainerStatus::Removing => "Removal In Progress".into(),
        ContainerStatus::Dead => "Dead".into(),
        ContainerStatus::Created | ContainerStatus::Unspecified => "Created".into(),
    }
}

/// 128 and the signal when one ended it.
pub fn exit_code(state: &ContainerState) -> i32 {
    if state.exit_code == 0 && state.exit_signal > 0 { 128 + state.exit_signal } else { state.exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::supervisor::v1::ContainerSpec;

    #[test]
    fn rows() {
        let oci_spec = json!({"process": {"args": ["sh", "-c", "sleep 100000; echo done"]}});
        let view = ContainerView {
            container: Some(Container {
                spec: Some(ContainerSpec {
                    id: "0123456789abcdef".into(),
                    name: "web".into(),
                    image: "alpine".into(),
                    oci_spec: oci_spec.to_string().into_bytes().into(),
                    ..Default::default()
                }),
                state: Some(ContainerState {
                    status: ContainerStatus::Exited.into(),
                    exit_signal: 9,
                    finished_at: "2020-01-01T00:00:00Z".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let row = row(&view, false, false);
        assert_eq!((row["ID"].as_str(), row["Names"].as_str()), (Some("0123456789ab"), Some("web")));
        assert_eq!(row["Command"], "\"sh -c sleep 100000;…\"");
        assert!(
            row["Status"]
                .as_str()
                .is_some_and(|status| status.starts_with("Exited (137) ") && status.ends_with("years ago"))
        );
    }
}
