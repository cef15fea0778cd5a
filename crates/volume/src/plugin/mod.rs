//! Drivers outside: docker's volume plugin protocol (JSON over HTTP), and the same in gRPC (`pier.volume.driver.v1`).
//!
//! A driver is asked without any lock held but for the caller's own patience: one that hangs costs the call that needs it
//! its time limit, and nobody else anything. An unmount that a driver owes is in the database until it is done.

mod discover;
mod grpc;
mod http;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::references::{self, Unmount};
use crate::{Error, Result, Volume, Volumes};

pub(crate) use discover::{Endpoint, directories};

/// Describing a volume waits no longer than this for its driver.
const DESCRIBE: Duration = Duration::from_secs(2);

/// A driver that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// "docker" or "grpc".
    pub protocol: &'static str,
    /// Where it listens.
    pub address: String,
    /// "local" or "global"; empty when it did not say in time.
    pub scope: String,
}

/// The name that the driver knows the volume by: the one it was made with.
pub(crate) fn name_of(volume: &Volume) -> String {
    volume.driver_name.clone().unwrap_or_else(|| volume.name.clone())
}

/// What went wrong with a call.
pub(crate) enum Problem {
    /// No answer in time.
    Silent,
    /// It cannot be reached, or it said no.
    Said(String),
}

fn ask(volumes: &Volumes, driver: &str, call: &str, body: Value, limit: Duration) -> Result<Value> {
    let endpoint = discover::find(&volumes.plugins, driver)?;
    let failed = |problem| match problem {
        Problem::Silent => Error::Driver {
            driver: driver.into(),
            call: call.into(),
            why: format!("no answer within {} s", limit.as_secs_f32()),
            silent: true,
        },
        Problem::Said(why) => Error::Driver { driver: driver.into(), call: call.into(), why, silent: false },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(Problem::Said(error.to_string())))?;
    let answer = runtime.block_on(async {
        let asked = async {
            match &endpoint {
                Endpoint::Grpc(socket) => grpc::call(socket, call, &body).await,
                other => http::call(other, &format!("/VolumeDriver.{call}"), &body).await,
            }
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(Problem::Silent))
    });
    // A lookup of a name or the like must not hold us longer.
    runtime.shutdown_background();
    answer.map_err(failed)
}

/// Makes the volume at its driver; one that it has already is fine.
pub(crate) fn create(volumes: &Volumes, volume: &Volume) -> Result<()> {
    let endpoint = discover::find(&volumes.plugins, &volume.driver)?;
    http::activate(&endpoint, &volume.driver, volumes.driver_limit)?;
    let body = json!({"Name": name_of(volume), "Opts": volume.options});
    ask(volumes, &volume.driver, "Create", body, volumes.driver_limit).map(drop)
}

/// Removes it there. With `force`, a driver that is not there any more is no obstacle.
pub(crate) fn remove(volumes: &Volumes, volume: &Volume, force: bool) -> Result<()> {
    match ask(volumes, &volume.driver, "Remove", json!({"Name": name_of(volume)}), volumes.driver_limit) {
        Err(Error::UnknownDriver(_)) if force => Ok(()),
        other => other.map(drop),
    }
}

/// Lets the driver mount the volume, and returns where.
pub(crate) fn mount(volumes: &Volumes, volume: &Volume, mount_id: &str) -> Result<PathBuf> {
    let body = json!({"Name": name_of(volume), "ID": mount_id});
    let answer = ask(volumes, &volume.driver, "Mount", body, volumes.driver_limit)?;
    let place = answer["Mountpoint"].as_str().unwrap_or_default();
    if !place.starts_with('/') {
        let why = format!("it answered the mountpoint {place:?}, which is no absolute path");
        return Err(Error::Driver { driver: volume.driver.clone(), call: "Mount".into(), why, silent: false });
    }
    Ok(place.into())
}

/// Lets it undo that.
pub(crate) fn unmount(volumes: &Volumes, volume: &Volume, mount_id: &str) -> Result<()> {
    let body = json!({"Name": name_of(volume), "ID": mount_id});
    ask(volumes, &volume.driver, "Unmount", body, volumes.driver_limit).map(drop)
}

/// Lets a driver undo a mount whose reference has gone, and forgets it then.
pub(crate) fn undo(volumes: &Volumes, unmount: &Unmount) -> Result<()> {
    let body = json!({"Name": unmount.name, "ID": unmount.mount_id});
    ask(volumes, &unmount.driver, "Unmount", body, volumes.driver_limit)?;
    volumes
        .references
        .write("note an unmount", |transaction| references::forget_unmount(transaction, unmount).map_err(Into::into))
}

/// What the driver says of a volume, for people.
pub(crate) fn status(volumes: &Volumes, volume: &Volume) -> BTreeMap<String, String> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match ask(volumes, &volume.driver, "Get", json!({"Name": name_of(volume)}), DESCRIBE) {
        Ok(answer) => {
            let about = &answer["Volume"];
            let mut status: BTreeMap<String, String> = about["Status"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), plain(value)))
                .collect();
            let place =
                about["Mountpoint"].as_str().filter(|place| !place.is_empty()).map(str::to_owned).or_else(|| {
                    let asked =
                        ask(volumes, &volume.driver, "Path", json!({"Name": name_of(volume)}), DESCRIBE).ok()?;
                    asked["Mountpoint"].as_str().filter(|place| !place.is_empty()).map(str::to_owned)
                });
            status.extend(place.map(|place| ("mountpoint".to_owned(), place)));
            status
        }
        Err(error) => BTreeMap::from([("error".to_owned(), error.to_string())]),
    }
}

/// Names that a driver has.
pub(crate) fn names(volumes: &Volumes, driver: &str) -> Result<Vec<String>> {
    let answer = ask(volumes, driver, "List", json!({}), volumes.driver_limit)?;
    let all = answer["Volumes"].as_array().into_iter().flatten();
    Ok(all.filter_map(|volume| volume["Name"].as_str().map(str::to_owned)).collect())
}

impl Volumes {
    /// The drivers that can be found now.
    pub fn drivers(&self) -> Vec<Driver> {
        let found = discover::all(&self.plugins).into_iter().map(|(name, endpoint)| {
            let said = ask(self, &name, "Capabilities", json!({}), DESCRIBE).ok();
            let scope = said.and_then(|said| said["Capabilities"]["Scope"].as_str().map(str::to_lowercase));
            Driver {
                protocol: if matches!(endpoint, Endpoint::Grpc(_)) { "grpc" } else { "docker" },
                address: endpoint.to_string(),
                scope: scope.unwrap_or_default(),
                name,
            }
        });
        found.collect()
    }

    /// Asks drivers again for the unmounts that they owe; what fails stays owed.
    pub fn retry_unmounts(&self) -> usize {
        let owed = self.references.read("read unmounts", references::unmounts).unwrap_or_default();
        let mut left = 0;
        for unmount in owed {
            if let Err(error) = undo(self, &unmount) {
                tracing::warn!(volume = unmount.name, %error, "a driver still owes an unmount");
                left += 1;
            }
        }
        left
    }
}
