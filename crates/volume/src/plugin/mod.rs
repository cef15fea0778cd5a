//! Drivers outside: docker's volume plugin protocol (JSON over HTTP), and the same in gRPC (`pier.volume.driver.v1`).
//!
//! A driver is asked without any lock held but for the caller's own patience: one that hangs costs the call that needs it
//! its time limit, and nobody else anything. An unmount that a driver owes is in the database until it is done.

mod grpc;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rpc::plugin::{self, Address, Problem};
use serde_json::{Value, json};

use crate::references::{self, Unmount};
use crate::{Error, Result, Volume, Volumes, record};

pub(crate) use plugin::directories;

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

fn failed(driver: &str, call: &str, problem: Problem) -> Error {
    let (driver, call) = (driver.to_owned(), call.to_owned());
    match problem {
        Problem::Silent(limit) => {
            let why = format!("no answer within {} s", limit.as_secs_f32());
            Error::Driver { driver, call, why, silent: true }
        }
        Problem::Said(why) => Error::Driver { driver, call, why, silent: false },
        Problem::Unreachable(_) => Error::Driver { driver, call, why: problem.to_string(), silent: false },
    }
}

/// The driver of a name.
fn find(volumes: &Volumes, driver: &str) -> Result<Address> {
    record::check_name(driver).map_err(|_| Error::UnknownDriver(driver.into()))?;
    let found = plugin::find(&volumes.plugins, driver).map_err(|problem| failed(driver, "find", problem))?;
    found.ok_or_else(|| Error::UnknownDriver(driver.into()))
}

fn ask(volumes: &Volumes, driver: &str, call: &str, body: Value, limit: Duration) -> Result<Value> {
    let answer = match find(volumes, driver)? {
        Address::Grpc(socket) => plugin::within(limit, grpc::call(&socket, call, &body)),
        address => plugin::ask(&address, &format!("VolumeDriver.{call}"), &body, limit),
    };
    answer.map_err(|problem| failed(driver, call, problem))
}

/// Makes the volume at its driver; one that it has already is fine.
pub(crate) fn create(volumes: &Volumes, volume: &Volume) -> Result<()> {
    let address = find(volumes, &volume.driver)?;
    if !matches!(address, Address::Grpc(_)) {
        let active = plugin::activate(&address, "VolumeDriver", volumes.driver_limit);
        active.map_err(|problem| failed(&volume.driver, "Plugin.Activate", problem))?;
    }
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
        let found = plugin::all(&self.plugins).into_iter().map(|(name, at)| {
            let said = ask(self, &name, "Capabilities", json!({}), DESCRIBE).ok();
            let scope = said.and_then(|said| said["Capabilities"]["Scope"].as_str().map(str::to_lowercase));
            Driver {
                protocol: if matches!(at, Address::Grpc(_)) { "grpc" } else { "docker" },
                address: at.to_string(),
                scope: scope.unwrap_or_default(),
                name,
            }
        });
        found.collect()
    }

    /// Asks drivers again for the unmounts that they owe; what fails stays owed.
    pub fn retry_unmounts(&self) {
        let owed = self.references.read("read unmounts", references::unmounts).unwrap_or_default();
        self.undo_owed(&owed);
    }

    /// The same for some; returns those that are owed still.
    pub(crate) fn undo_owed<'a>(&self, owed: &'a [Unmount]) -> Vec<&'a Unmount> {
        let fails = |unmount: &&Unmount| match undo(self, unmount) {
            Err(error) => {
                tracing::warn!(volume = unmount.name, %error, "a driver still owes an unmount");
                true
            }
            Ok(()) => false,
        };
        owed.iter().filter(fails).collect()
    }
}
