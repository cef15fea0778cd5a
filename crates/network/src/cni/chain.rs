//! The plugins of others, as a driver: each of a list is run in turn with what the one before came to (spec, "Section
//! 2: Execution Protocol").

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{PortMap, Success};
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, NewEndpoint, PortMapping};

/// Where plugins are looked for when the option `cni.path` names nothing else.
pub const DEFAULT_PATH: &str = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni";

/// Reads the file that the option `conflist` names: a list of plugins, or one plugin's configuration.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Io`].
pub fn read(network: &Network) -> Result<Value> {
    let path = network.option(&["conflist"]).map(PathBuf::from);
    let path = path.ok_or_else(|| Error::invalid("option conflist", "the driver cni needs it: --opt conflist=FILE"))?;
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let invalid = |why: String| Error::invalid(format!("conflist {}", path.display()), why);
    let mut list: Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    if list["plugins"].is_null() && list["type"].is_string() {
        list = json!({ "cniVersion": list["cniVersion"], "name": list["name"], "plugins": [list] });
    }
    let version = list["cniVersion"].as_str().unwrap_or_default();
    if !super::VERSIONS.contains(&version) {
        return Err(invalid(format!("cniVersion {version:?} is not one of {}", super::VERSIONS.join(", "))));
    }
    let plugins = list["plugins"].as_array().filter(|plugins| !plugins.is_empty());
    for plugin in plugins.ok_or_else(|| invalid("it names no plugins".into()))? {
        let kind = plugin["type"].as_str().unwrap_or_default();
        if kind.is_empty() || kind.contains('/') {
            return Err(invalid(format!("{kind:?} is not the type of a plugin")));
        }
        find(network, kind)?;
    }
    Ok(list)
}

fn find(network: &Network, kind: &str) -> Result<PathBuf> {
    let path = network.option(&["cni.path"]).unwrap_or(DEFAULT_PATH);
    let found = path.split(':').map(|dir| Path::new(dir).join(kind)).find(|file| file.is_file());
    found.ok_or_else(|| Error::invalid(format!("CNI plugin {kind:?}"), format!("is not in {path}")))
}

/// ADD through the list. What was done is undone when a plugin fails.
///
/// # Errors
/// [`Error::Foreign`].
pub(crate) fn attach(network: &Network, new: &NewEndpoint, endpoint: &Endpoint, limit: Duration) -> Result<Endpoint> {
    let call = Call { network, endpoint, new: Some(new), limit };
    let mut previous = Value::Null;
    for plugin in call.plugins() {
        match call.run("ADD", &plugin, &previous) {
            Ok(result) => previous = result,
            Err(error) => {
                let _ = call.undo(&previous);
                return Err(error);
            }
        }
    }
    let success: Success = serde_json::from_value(previous.clone()).map_err(|error| call.error(error.to_string()))?;
    let mut whole = endpoint.clone();
    whole.addresses = success.ips.iter().map(|ip| ip.address).collect();
    let default = |route: &&super::Route| route.dst.prefix_len() == 0;
    whole.gateways = success.routes.iter().filter(default).filter_map(|route| route.gw).collect();
    whole.dns_servers = success.dns.nameservers.iter().filter_map(|text| text.parse().ok()).collect();
    let inside = success.interfaces.iter().find(|link| !link.sandbox.is_empty() && link.name == whole.interface);
    if let Some(inside) = inside.filter(|link| !link.mac.is_empty()) {
        whole.mac_address.clone_from(&inside.mac);
    }
    whole.state = previous;
    Ok(whole)
}

/// DEL through the list, from its end.
///
/// # Errors
/// [`Error::Foreign`], after all plugins were asked.
pub(crate) fn detach(network: &Network, endpoint: &Endpoint, limit: Duration) -> Result<()> {
    Call { network, endpoint, new: None, limit }.undo(&endpoint.state)
}

struct Call<'a> {
    network: &'a Network,
    endpoint: &'a Endpoint,
    new: Option<&'a NewEndpoint>,
    limit: Duration,
}

impl Call<'_> {
    fn plugins(&self) -> Vec<Value> {
        self.network.state["plugins"].as_array().cloned().unwrap_or_default()
    }

    fn error(&self, why: String) -> Error {
        Error::Foreign { driver: "cni".into(), step: format!("network {:?}", self.network.name), why }
    }

    fn undo(&self, previous: &Value) -> Result<()> {
        let failed = |plugin: &Value| self.run("DEL", plugin, previous).err();
        self.plugins().iter().rev().filter_map(failed).next().map_or(Ok(()), Err)
    }

    fn run(&self, command: &str, plugin: &Value, previous: &Value) -> Result<Value> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let program = find(self.network, kind)?;
        let failed = |why: String| Error::Foreign { driver: format!("cni {kind}"), step: command.to_owned(), why };
        let output = execute(&self.command(&program, command), &self.configuration(plugin, previous), self.limit)
            .map_err(|error| failed(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if !output.success {
            let said = answer["msg"].as_str().map(str::to_owned);
            let why = said.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned());
            let details = answer["details"].as_str().filter(|text| !text.is_empty());
            return Err(failed(details.map_or(why.clone(), |details| format!("{why}: {details}"))));
        }
        if command == "ADD" && !answer.is_object() {
            return Err(failed("it answered with no result".into()));
        }
        Ok(answer)
    }

    /// The plugin's configuration with what the runtime adds to it.
    fn configuration(&self, plugin: &Value, previous: &Value) -> Value {
        let mut conf = plugin.clone();
        conf["cniVersion"] = self.network.state["cniVersion"].clone();
        conf["name"] = json!(self.network.name);
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let can = |name: &str| plugin["capabilities"][name] == json!(true);
        if can("portMappings") && !self.endpoint.ports.is_empty() {
            let ports: Vec<PortMap> = self.endpoint.ports.iter().flat_map(single).collect();
            conf["runtimeConfig"]["portMappings"] = json!(ports);
        }
        if let Some(new) = self.new {
            if can("ips") && !new.addresses.is_empty() {
                conf["runtimeConfig"]["ips"] = json!(new.addresses);
            }
            if can("mac") && !new.mac_address.is_empty() {
                conf["runtimeConfig"]["mac"] = json!(new.mac_address);
            }
        }
        if let Some(fields) = conf.as_object_mut() {
            fields.remove("capabilities");
        }
        conf
    }

    fn command(&self, program: &Path, command: &str) -> Environment {
        let path = self.network.option(&["cni.path"]).unwrap_or(DEFAULT_PATH);
        Environment {
            program: program.to_owned(),
            variables: vec![
                ("CNI_COMMAND", command.to_owned()),
                ("CNI_CONTAINERID", self.endpoint.id.clone()),
                ("CNI_NETNS", self.endpoint.netns_path.display().to_string()),
                ("CNI_IFNAME", self.endpoint.interface.clone()),
                ("CNI_PATH", path.to_owned()),
            ],
        }
    }
}

/// The protocol has no ranges.
fn single(port: &PortMapping) -> Vec<PortMap> {
    let one = |step: u16| PortMap {
        host_port: port.host_port.saturating_add(step),
        container_port: port.container_port.saturating_add(step),
        protocol: port.protocol.to_string(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    (0..port.range).map(one).collect()
}

/// A program and the variables it is given.
struct Environment {
    program: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// What a plugin left.
struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs a plugin in a process group of its own, which is killed when time is up.
fn execute(environment: &Environment, stdin: &Value, limit: Duration) -> io::Result<Output> {
    let mut command = Command::new(&environment.program);
    command.envs(environment.variables.iter().map(|(name, value)| (name, value))).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let (mut input, mut out, mut err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (sender, receiver) = std::sync::mpsc::channel();
    let stdin = stdin.to_string();
    let talk = std::thread::spawn(move || {
        if let Some(mut input) = input.take() {
            // A plugin that reads nothing says why by itself.
            let _ = input.write_all(stdin.as_bytes());
        }
        let errors = std::thread::spawn(move || read_all(&mut err));
        let stdout = read_all(&mut out);
        let _ = sender.send(());
        (stdout, errors.join().unwrap_or_default())
    });
    let in_time = receiver.recv_timeout(limit).is_ok();
    if !in_time && let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let status = child.wait()?;
    if !in_time {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took more than {limit:?} and was killed")));
    }
    let (stdout, stderr) = talk.join().unwrap_or_default();
    Ok(Output { success: status.success(), stdout, stderr })
}

fn read_all(stream: &mut Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    bytes
}
