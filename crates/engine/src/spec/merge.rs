//! The image's configuration as the default of the container's, by docker's rules.
use crate::error::Error;
use api::engine::v1::ContainerConfig;
use api::supervisor::v1::Healthcheck;
use oci::ImageConfig;
use oci::image::RunConfig;
use std::collections::{BTreeMap, BTreeSet};

/// A container's configuration with nothing left to look up in the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// Entrypoint and command in one.
    pub args: Vec<String>,
    /// "K=V", each key once: defaults, then the image's, then the container's.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: String,
    /// As in [`api::supervisor::v1::ContainerSpec::user`].
    pub user: String,
    /// The container's over the image's.
    pub labels: BTreeMap<String, String>,
    /// Paths that the image wants volumes on and that the container mounts nothing else on.
    pub anonymous_volumes: Vec<String>,
    /// "80/tcp", of both.
    pub exposed_ports: BTreeSet<String>,
    /// Empty: SIGTERM.
    pub stop_signal: String,
    /// None: no check.
    pub healthcheck: Option<Healthcheck>,
}

/// Fills in the image's defaults.
///
/// # Errors
/// [`Error::Invalid`] when there is nothing to run or a path is not absolute.
pub fn merge(config: &ContainerConfig, image: &ImageConfig) -> Result<Merged, Error> {
    let base = &image.config;
    let mut labels: BTreeMap<String, String> = base.labels.clone();
    labels.extend(config.labels.clone());
    let working_dir = first_of(&config.working_dir, &base.working_dir, "/");
    if !working_dir.starts_with('/') {
        return Err(Error::invalid("working directory", &working_dir, "it must be an absolute path"));
    }
    Ok(Merged {
        args: args(config, base)?,
        env: environment(config, base)?,
        working_dir,
        user: first_of(&config.user, &base.user, ""),
        labels,
        anonymous_volumes: anonymous_volumes(config, base),
        exposed_ports: exposed_ports(config, base)?,
        stop_signal: first_of(&config.stop_signal, &base.stop_signal, ""),
        healthcheck: healthcheck(config.healthcheck.as_ref(), base.healthcheck.as_ref()),
    })
}

// A new entrypoint drops the image's command with the image's entrypoint: its arguments were meant for that one.
fn args(config: &ContainerConfig, base: &RunConfig) -> Result<Vec<String>, Error> {
    let (entrypoint, default_cmd) = match &config.entrypoint {
        Some(own) => (own.args.clone(), &[][..]),
        None => (base.entrypoint.clone(), &base.cmd[..]),
    };
    let cmd = if config.cmd.is_empty() { default_cmd } else { &config.cmd };
    let args: Vec<String> = entrypoint.into_iter().chain(cmd.iter().cloned()).collect();
    match args.first() {
        None => Err(Error::NoCommand { image: config.image.clone() }),
        Some(program) if program.is_empty() => Err(Error::invalid("command", "", "the program's name is empty")),
        Some(_) => Ok(args),
    }
}

fn environment(config: &ContainerConfig, base: &RunConfig) -> Result<Vec<String>, Error> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &str| match env.iter_mut().find(|(k, _)| k == key) {
        Some(entry) => entry.1 = value.to_string(),
        None => env.push((key.to_string(), value.to_string())),
    };
    let (path, default_path) = oci::runtime::DEFAULT_PATH.split_once('=').unwrap_or(("PATH", "/bin"));
    put(path, default_path);
    if config.tty {
        put("TERM", "xterm");
    }
    for entry in &base.env {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        put(key, value);
    }
    let mut removed = BTreeSet::new();
    for entry in &config.env {
        match entry.split_once('=') {
            Some(("", _)) => return Err(Error::invalid("environment variable", entry, "its name is empty")),
            Some((key, value)) => {
                removed.remove(key);
                put(key, value);
            }
            None => {
                removed.insert(entry.as_str());
            }
        }
    }
    env.retain(|(key, _)| !removed.contains(key.as_str()));
    if let Some((key, _)) = env.iter().find(|(k, v)| k.contains('\0') || v.contains('\0')) {
        return Err(Error::invalid("environment variable", key, "a NUL byte stands in it"));
    }
    Ok(env.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
}

fn anonymous_volumes(config: &ContainerConfig, base: &RunConfig) -> Vec<String> {
    let taken = |path: &str| config.mounts.iter().any(|m| clean(&m.target) == clean(path));
    base.volumes.keys().filter(|path| path.starts_with('/') && !taken(path)).map(|path| clean(path)).collect()
}

fn exposed_ports(config: &ContainerConfig, base: &RunConfig) -> Result<BTreeSet<String>, Error> {
    let own = config.network.iter().flat_map(|n| &n.expose);
    base.exposed_ports.keys().chain(own).map(|p| crate::ports::normal_exposed(p)).collect()
}

// A field that the container leaves out keeps the image's value; NONE in either test means no check.
fn healthcheck(own: Option<&Healthcheck>, base: Option<&oci::image::Healthcheck>) -> Option<Healthcheck> {
    let mut merged = base.map(from_image).unwrap_or_default();
    if let Some(own) = own {
        if !own.test.is_empty() {
            merged.test = own.test.clone();
        }
        merged.interval_ns = nonzero(own.interval_ns, merged.interval_ns);
        merged.timeout_ns = nonzero(own.timeout_ns, merged.timeout_ns);
        merged.start_period_ns = nonzero(own.start_period_ns, merged.start_period_ns);
        merged.retries = if own.retries == 0 { merged.retries } else { own.retries };
    }
    let none = merged.test.is_empty() || merged.test.first().is_some_and(|t| t == "NONE");
    (!none).then_some(merged)
}

fn from_image(check: &oci::image::Healthcheck) -> Healthcheck {
    Healthcheck {
        test: check.test.clone(),
        interval_ns: check.interval,
        timeout_ns: check.timeout,
        start_period_ns: check.start_period,
        retries: u32::try_from(check.retries).unwrap_or(0),
    }
}

fn nonzero(own: i64, base: i64) -> i64 {
    if own == 0 { base } else { own }
}

fn first_of(own: &str, base: &str, default: &str) -> String {
    [own, base].into_iter().find(|s| !s.is_empty()).unwrap_or(default).to_string()
}

/// A path without a trailing or doubled slash.
pub fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    format!("/{}", parts.join("/"))
}
