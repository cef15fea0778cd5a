//! The same calls in gRPC: `pier.volume.driver.v1`. Answers look as docker's do, so that callers need not know.

use std::path::Path;
use std::time::Duration;

use api::volume_driver::v1 as proto;
use api::volume_driver::v1::volume_driver_service_client::VolumeDriverServiceClient;
use serde_json::{Value, json};

use super::Problem;

/// One call.
pub(super) async fn call(socket: &Path, call: &str, body: &Value) -> Result<Value, Problem> {
    let channel = rpc::connect(socket, Duration::from_secs(5)).await.map_err(|e| Problem::Said(e.to_string()))?;
    let mut client = VolumeDriverServiceClient::new(channel);
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let (name, mount_id) = (text("Name"), text("ID"));
    let answer = match call {
        "Create" => {
            let options = body["Opts"].as_object().into_iter().flatten();
            let options =
                options.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
            client.create(proto::CreateRequest { name, options }).await.map(|_| Value::Null)
        }
        "Remove" => client.remove(proto::RemoveRequest { name }).await.map(|_| Value::Null),
        "Mount" => client
            .mount(proto::MountRequest { name, mount_id })
            .await
            .map(|answer| json!({"Mountpoint": answer.into_inner().mountpoint})),
        "Unmount" => client.unmount(proto::UnmountRequest { name, mount_id }).await.map(|_| Value::Null),
        "Get" => client.get(proto::GetRequest { name }).await.map(|answer| {
            let answer = answer.into_inner();
            let status: serde_json::Map<String, Value> =
                answer.status.into_iter().map(|(k, v)| (k, v.into())).collect();
            json!({"Volume": {"Name": body["Name"], "Mountpoint": answer.mountpoint, "Status": status}})
        }),
        // Part of Get here.
        "Path" => Ok(json!({})),
        "List" => client.list(proto::ListRequest {}).await.map(|answer| {
            let names: Vec<Value> = answer.into_inner().names.into_iter().map(|name| json!({"Name": name})).collect();
            json!({"Volumes": names})
        }),
        "Capabilities" => client
            .capabilities(proto::CapabilitiesRequest {})
            .await
            .map(|answer| json!({"Capabilities": {"Scope": answer.into_inner().scope}})),
        other => return Err(Problem::Said(format!("no such call: {other}"))),
    };
    answer.map_err(|status| Problem::Said(status.message().to_owned()))
}
