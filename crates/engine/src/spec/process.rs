//! The `process` object.
use super::{Inputs, hostname};
use crate::error::Error;
use serde_json::{Value, json};

/// Where the init program is seen inside.
pub const INIT_TARGET: &str = "/sbin/pier-init";

/// What is executed: the init first, when there is one.
pub fn args(inputs: &Inputs<'_>) -> Vec<String> {
    let mut args = inputs.merged.args.clone();
    if inputs.init.is_some() {
        args.splice(0..0, [INIT_TARGET.to_string(), "--".to_string()]);
    }
    args
}

/// Environment, user, limits, privileges. The user is root here: the supervisor resolves the wanted one in the rootfs.
pub fn process(inputs: &Inputs<'_>, capabilities: &[String]) -> Result<Value, Error> {
    let config = inputs.config;
    let security = config.security.clone().unwrap_or_default();
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": args(inputs),
        "env": environment(inputs),
        "cwd": inputs.merged.working_dir,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": security.no_new_privileges,
    });
    let rlimits = config.ulimits.iter().map(|u| rlimit(u)).collect::<Result<Vec<_>, _>>()?;
    if !rlimits.is_empty() {
        process["rlimits"] = json!(rlimits);
    }
    if let Some(score) = config.resources.as_ref().and_then(|r| r.oom_score_adj) {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::invalid("oom score adjustment", score, "it goes from -1000 to 1000"));
        }
        process["oomScoreAdj"] = json!(score);
    }
    if !security.apparmor.is_empty() && security.apparmor != "unconfined" {
        process["apparmorProfile"] = json!(security.apparmor);
    }
    Ok(process)
}

// HOME is the supervisor's: only the rootfs knows the user's.
fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env = inputs.merged.env.clone();
    if !env.iter().any(|e| e.starts_with("HOSTNAME=")) && inputs.namespaces.uts != super::namespaces::Uts::Host {
        let at = usize::from(env.first().is_some_and(|e| e.starts_with("PATH=")));
        env.insert(at, format!("HOSTNAME={}", hostname(inputs)));
    }
    env
}

fn rlimit(text: &str) -> Result<Value, Error> {
    let ulimit: oci::ulimit::Ulimit =
        text.parse().map_err(|error: oci::ulimit::UlimitError| Error::invalid("ulimit", text, error.why))?;
    Ok(json!({"type": ulimit.kind(), "soft": ulimit.soft, "hard": ulimit.hard}))
}
