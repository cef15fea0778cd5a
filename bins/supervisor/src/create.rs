//! From flags to a record: a bundle as it is, or a rootfs with the default configuration.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use supervisor::{Definition, LogConfig};

use crate::args::Create;

/// Definition and OCI configuration.
pub fn plan(args: &Create, detach: bool) -> anyhow::Result<(Definition, Vec<u8>)> {
    let mut spec = match (&args.bundle, &args.rootfs) {
        (Some(bundle), _) => from_bundle(bundle, &args.command)?,
        (None, Some(rootfs)) => from_rootfs(rootfs, &args.command)?,
        (None, None) => anyhow::bail!("--bundle or --rootfs is needed"),
    };
    if args.tty {
        spec["process"]["terminal"] = json!(true);
    }
    let definition = Definition {
        name: args.name.clone(),
        user: args.user.clone(),
        labels: pairs(&args.labels),
        restart: args.restart,
        log: LogConfig { driver: args.log_driver.clone(), options: pairs(&args.log_options) },
        stop_signal: args.stop_signal.clone(),
        stop_timeout_seconds: args.stop_timeout,
        open_stdin: args.interactive,
        stdin_once: args.interactive && !detach,
        auto_remove: args.rm,
        ..Definition::default()
    };
    Ok((definition, serde_json::to_vec(&spec)?))
}

/// Paths of a bundle's configuration are relative to it; a record stands elsewhere.
fn from_bundle(bundle: &Path, command: &[String]) -> anyhow::Result<Value> {
    let bundle = std::fs::canonicalize(bundle).with_context(|| format!("bundle {}", bundle.display()))?;
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut spec: Value = serde_json::from_slice(&text).with_context(|| format!("malformed {}", path.display()))?;
    anyhow::ensure!(spec.is_object(), "malformed {}: not an object", path.display());
    let root = spec.pointer("/root/path").and_then(Value::as_str).unwrap_or("rootfs");
    let root = bundle.join(root);
    anyhow::ensure!(root.is_dir(), "the bundle has no rootfs {}", root.display());
    spec["root"]["path"] = json!(root);
    for mount in spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        make_bind_absolute(mount, &bundle);
    }
    if !command.is_empty() {
        spec["process"]["args"] = json!(command);
    }
    Ok(spec)
}

fn make_bind_absolute(mount: &mut Value, bundle: &Path) {
    let options = mount.get("options").and_then(Value::as_array);
    let is_bind = mount.get("type").and_then(Value::as_str) == Some("bind")
        || options.is_some_and(|o| o.iter().any(|o| matches!(o.as_str(), Some("bind" | "rbind"))));
    if is_bind && let Some(source) = mount.get("source").and_then(Value::as_str).map(|s| bundle.join(s)) {
        mount["source"] = json!(source);
    }
}

fn from_rootfs(rootfs: &Path, command: &[String]) -> anyhow::Result<Value> {
    let rootfs = std::fs::canonicalize(rootfs).with_context(|| format!("rootfs {}", rootfs.display()))?;
    let mut spec = serde_json::to_value(oci::runtime::default_spec(command)?)?;
    spec["root"]["path"] = json!(rootfs);
    Ok(spec)
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text.clone(), String::new()),
        })
        .collect()
}
