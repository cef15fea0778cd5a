//! `update`: other limits for a container that runs. Only what is named changes; devices never do.

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::cgroup::Placement;
pub use crate::rdt::Changes as Rdt;
use crate::state::Store;
use crate::{Error, Result, key_case, rdt};

/// Applies `changes`, a `LinuxResources` object of which everything may be absent, and remembers it. Returns warnings.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Argument`] when it is no such object, what the kernel says of a value.
pub fn update(store: &Store, id: &str, changes: Value, class: &Rdt) -> Result<Vec<String>> {
    let mut container = store.load(id)?;
    let init = container.init()?;
    let mut spec = container.config()?;
    let Some(linux) = spec.linux().clone() else { return Err(Error::Refused("the container has no resources".into())) };
    let bad = |e: serde_json::Error| Error::Argument(format!("invalid resources: {e}"));
    let changes = exact(changes).map_err(bad)?;
    let old = serde_json::to_value(linux.resources()).map_err(bad)?;
    let applied: LinuxResources = key_case::from_value(&with_companions(&changes, &old)).map_err(bad)?;
    let merged: LinuxResources = key_case::from_value(&merge(old, &changes)).map_err(bad)?;
    let resctrl = rdt::find(class)?;
    let cgroup: &Placement = &container.record.cgroup;
    let mut warnings = vec![];
    if let Some(unit) = &cgroup.unit {
        cgroup.check_memory(&applied)?;
        warnings = unit.update(&applied, cgroup.unified)?;
    }
    warnings.extend(cgroup.limit(&applied)?);
    let mut linux = linux;
    linux.set_resources(Some(merged));
    spec.set_linux(Some(linux));
    if let Some(root) = resctrl {
        rdt::update(&root, class, &mut spec, &mut container.record, init.pid)?;
        store.save(&container.record)?;
    }
    store.save_config(id, &spec)?;
    Ok(warnings)
}

/// The changes without devices, their keys as the specification spells them. Pure.
fn exact(mut changes: Value) -> serde_json::Result<Value> {
    if let Some(object) = changes.as_object_mut() {
        object.retain(|key, _| !key.eq_ignore_ascii_case("devices"));
    }
    serde_json::to_value(key_case::from_value::<LinuxResources>(&changes)?)
}

/// The changes and what the kernel or a conversion needs beside them: quota and period are one file, and swap is set as a
/// difference to memory. Pure.
fn with_companions(changes: &Value, old: &Value) -> Value {
    let mut all = changes.clone();
    let number = |v: &Value, group: &str, key: &str| v[group][key].as_i64().unwrap_or(0);
    let pairs = [
        ("cpu", "quota", "period"),
        ("cpu", "period", "quota"),
        ("memory", "swap", "limit"),
        ("memory", "limit", "swap"),
    ];
    for (group, given, missing) in pairs {
        let (value, before) = (number(changes, group, given), number(old, group, missing));
        // No limit of memory means none of swap.
        let unlimited = group == "memory" && given == "limit" && value == -1;
        if value != 0 && number(changes, group, missing) == 0 && before != 0 && !unlimited {
            all[group][missing] = json!(before);
        }
    }
    all
}

/// The resources to remember. Objects are merged, lists of devices by device, anything else is replaced. Pure.
fn merge(old: Value, new: &Value) -> Value {
    match (old, new) {
        (old, Value::Null) => old,
        (Value::Object(mut old), Value::Object(new)) => {
            for (key, value) in new {
                let before = old.remove(key).unwrap_or(Value::Null);
                old.insert(key.clone(), merge(before, value));
            }
            if new.get("limit").and_then(Value::as_i64) == Some(-1) && !new.contains_key("swap") {
                old.remove("swap");
            }
            Value::Object(old)
        }
        (Value::Array(mut old), Value::Array(new)) => {
            for entry in new {
                let same = |e: &Value| device_of(e).is_some() && device_of(e) == device_of(entry);
                old.retain(|e| !same(e));
                old.push(entry.clone());
            }
            Value::Array(old)
        }
        (Value::Null, Value::Object(new)) => merge(Value::Object(Map::new()), &Value::Object(new.clone())),
        (_, new) => new.clone(),
    }
}

fn device_of(entry: &Value) -> Option<(i64, i64)> {
    Some((entry["major"].as_i64()?, entry["minor"].as_i64()?))
}

/// Bytes with an optional unit: `1024`, `64M`, `1.5g`, `2KiB`; -1 stands for no limit.
///
/// # Errors
/// [`Error::Argument`].
pub fn bytes(text: &str) -> Result<i64> {
    let bad = || Error::Argument(format!("invalid size: '{text}'"));
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| bad())?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let value = number * 1024_f64.powi(power);
    if value < i64::MAX as f64 { Ok(value as i64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn changes_in_any_case() {
        let given =
            json!({"CPU": {"Cpus": "0"}, "Devices": [5], "devices": "x", "memory": {"LIMIT": -1, "swap": null}});
        assert_eq!(exact(given).unwrap(), json!({"cpu": {"cpus": "0"}, "memory": {"limit": -1}}));
        assert!(exact(json!({"cpu": {"Cpus": 0}})).is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("67108864").unwrap(), 67_108_864);
        assert_eq!(bytes("50M").unwrap(), 52_428_800);
        assert_eq!(bytes("1.5g").unwrap(), 1_610_612_736);
        assert_eq!(bytes("2 KiB").unwrap(), 2048);
        assert_eq!(bytes("-1").unwrap(), -1);
        for wrong in ["", "x", "-2", "1q", "9999999p"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_belongs_together_is_set_together() {
        let old = json!({"cpu": {"quota": 500, "period": 1000}, "memory": {"limit": 64, "swap": 128}});
        let of = |changes: Value| with_companions(&changes, &old);
        assert_eq!(of(json!({"cpu": {"period": 900}})), json!({"cpu": {"period": 900, "quota": 500}}));
        assert_eq!(of(json!({"cpu": {"quota": -1}})), json!({"cpu": {"quota": -1, "period": 1000}}));
        assert_eq!(of(json!({"cpu": {"shares": 9}})), json!({"cpu": {"shares": 9}}));
        assert_eq!(of(json!({"memory": {"swap": 256}})), json!({"memory": {"swap": 256, "limit": 64}}));
        assert_eq!(of(json!({"memory": {"limit": -1}})), json!({"memory": {"limit": -1}}));
    }

    #[test]
    fn what_is_not_named_stays() {
        let old = json!({"memory": {"limit": 64, "swap": 128}, "devices": [{"allow": false}],
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 2}]}});
        let new = json!({"memory": {"limit": 32}, "pids": {"limit": 5},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}});
        let got = merge(old.clone(), &new);
        assert_eq!(got["memory"], json!({"limit": 32, "swap": 128}));
        assert_eq!(got["pids"]["limit"], 5);
        assert_eq!(got["devices"], json!([{"allow": false}]));
        let list = &got["blockIO"]["throttleReadBpsDevice"];
        assert_eq!(list[0]["minor"], 1);
        assert_eq!(list[1], json!({"major": 8, "minor": 0, "rate": 9}));
        assert_eq!(merge(old, &json!({"memory": {"limit": -1}}))["memory"], json!({"limit": -1}));
        assert_eq!(merge(Value::Null, &json!({"pids": {"limit": 1}})), json!({"pids": {"limit": 1}}));
    }
}
