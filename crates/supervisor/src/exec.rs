//! One more process in a running container.

use std::fs;
use std::path::Path;

use oci::shim::{Exec, Reply, Request, Size};
use serde_json::{Map, Value, json};

use crate::attach::Streams;
use crate::shim_client::accept;
use crate::status::Status;
use crate::{Error, Supervisor, blocking};

/// Largest passwd or group file that is read.
const MAX_FILE: u64 = 16 << 20;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the container's.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub cwd: String,
    /// Empty: the container's.
    pub user: String,
    /// With a terminal.
    pub terminal: bool,
    /// The client sends stdin.
    pub stdin: bool,
    /// Nobody listens.
    pub detach: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Of the terminal.
    pub size: Option<Size>,
}

/// A started process.
pub struct Executed {
    /// 64 hex digits.
    pub id: String,
    /// Host pid.
    pub pid: i32,
    /// Its streams; they end with its exit. Of a detached one nothing comes.
    pub streams: Streams,
}

impl Supervisor {
    /// Starts a process.
    pub async fn exec(&self, reference: &str, options: ExecOptions) -> Result<Executed, Error> {
        let this = self.clone();
        let reference = reference.to_owned();
        let (id, exec_id, pid, connection) = blocking(move || {
            let id = this.store().resolve(&reference)?;
            let seen = this.expect(&id, Status::Running, "exec in")?;
            let exec = this.plan_exec(&id, seen.pid, &options)?;
            let exec_id = exec.id.clone();
            this.journal_of(&id, "exec_create", &[("execID", exec_id.clone())]);
            let mut connection = this.connect(&id)?;
            let reply = accept(&id, "exec in", connection.request(&Request::Exec(Box::new(exec)))?)?;
            let Reply::Started { pid } = reply else {
                return Err(connection.broken("it answered the exec with something else".into()));
            };
            Ok((id, exec_id, pid, connection))
        })
        .await?;
        Ok(Executed { id: exec_id, pid, streams: Streams::new(&id, connection)? })
    }

    fn plan_exec(&self, id: &str, pid: i32, options: &ExecOptions) -> Result<Exec, Error> {
        if options.args.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("args", "no command given"));
        }
        let path = self.store().container(id).join("bundle").join("config.json");
        let text = fs::read(&path).map_err(Error::file("read", &path))?;
        let spec: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::Internal { step: "bundle configuration", message: error.to_string() })?;
        let base = spec.get("process").and_then(Value::as_object).cloned().unwrap_or_default();
        let user = (!options.user.is_empty()).then(|| resolve_user(pid, &options.user)).transpose()?;
        let exec_id = oci::name::id_from_random(rand::random());
        Ok(Exec {
            id: exec_id,
            process: process(base, options, user),
            stdin: options.stdin,
            detach: options.detach,
            size: options.size,
        })
    }
}

/// The container's process with what was asked for changed: runtime-spec's `process`.
fn process(mut base: Map<String, Value>, options: &ExecOptions, user: Option<oci::user::User>) -> Value {
    base.insert("args".into(), json!(options.args));
    base.insert("terminal".into(), json!(options.terminal));
    base.remove("consoleSize");
    if let Some(size) = options.size.filter(|_| options.terminal) {
        base.insert("consoleSize".into(), json!({"width": size.width, "height": size.height}));
    }
    if !options.cwd.is_empty() {
        base.insert("cwd".into(), json!(options.cwd));
    }
    let mut env: Vec<String> = base
        .get("env")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    if let Some(user) = &user {
        set_env(&mut env, &format!("HOME={}", user.home));
        let ids = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids});
        base.insert("user".into(), ids);
    }
    if options.terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    for entry in &options.env {
        set_env(&mut env, entry);
    }
    base.insert("env".into(), json!(env));
    if options.privileged {
        let all = json!(bounding_set());
        base.insert("capabilities".into(), json!({"bounding": all, "effective": all, "permitted": all}));
    }
    Value::Object(base)
}

fn set_env(env: &mut Vec<String>, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    env.retain(|old| old.split('=').next() != Some(name));
    if entry.contains('=') {
        env.push(entry.to_owned());
    }
}

/// Against the passwd and group files of the running container.
fn resolve_user(pid: i32, user: &str) -> Result<oci::user::User, Error> {
    let passwd = read_in_container(pid, "etc/passwd");
    let group = read_in_container(pid, "etc/group");
    oci::user::resolve(user, &[], &passwd, &group)
        .map_err(|error| Error::invalid(format!("user {user:?}"), error.to_string()))
}

fn read_in_container(pid: i32, name: &str) -> String {
    sys::inside::text(Path::new(&format!("/proc/{pid}/root")), name, MAX_FILE)
}

/// Capabilities by number (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What this process may hand on: a capability outside its own bounding set makes every runtime fail.
fn bounding_set() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).map(str::trim).unwrap_or_default();
    let bits = u64::from_str_radix(bits, 16).unwrap_or(0);
    let held = CAPABILITIES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_inherited() {
        let base = json!({
            "args": ["sleep"], "cwd": "/srv", "env": ["A=1", "B=2"], "user": {"uid": 5, "gid": 5},
            "capabilities": {"bounding": ["CAP_KILL"]}, "noNewPrivileges": true,
        });
        let options = ExecOptions {
            args: vec!["id".into()],
            env: vec!["B=3".into(), "C=4".into(), "A".into()],
            terminal: true,
            ..ExecOptions::default()
        };
        let made = process(base.as_object().cloned().unwrap_or_default(), &options, None);
        assert_eq!(made["env"], json!(["TERM=xterm", "B=3", "C=4"]).clone());
        assert_eq!(made["cwd"], "/srv");
        assert_eq!(made["user"]["uid"], 5);
        assert_eq!(made["noNewPrivileges"], true);
        assert_eq!(made["capabilities"]["bounding"], json!(["CAP_KILL"]));
        assert_eq!(made["args"], json!(["id"]));
    }
}
