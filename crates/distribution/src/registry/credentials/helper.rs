//! Credential helpers: `docker-credential-<name>`, the protocol of docker's credential-helpers. A helper that hangs is killed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::super::error::Result;
use super::{Credentials, TOKEN_USER, bad};

/// A helper that has not answered by then is killed: 10 s, or `PIER_CREDENTIAL_HELPER_TIMEOUT` in seconds.
fn patience() -> Duration {
    let given = std::env::var("PIER_CREDENTIAL_HELPER_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.filter(|seconds| *seconds > 0).unwrap_or(10))
}

pub(super) async fn ask_helper(helper: &str, registry: &str, key: &str) -> Result<Option<Credentials>> {
    let Some(answer) = run_helper(helper, registry, "get", key).await? else { return Ok(None) };
    let problem = |problem: String| bad(program(helper), registry, problem);
    let value: Value = serde_json::from_slice(&answer).map_err(|e| problem(e.to_string()))?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, password) = (text("Username"), text("Secret"));
    if password.is_empty() {
        return Err(problem("it gave no secret".into()));
    }
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(password),
        _ => Credentials::Password { username, password },
    }))
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs a helper. `None`: it knows nothing of this registry.
pub(super) async fn run_helper(helper: &str, registry: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let problem = |problem: String| bad(program(helper), registry, problem);
    if helper.contains('/') {
        return Err(problem("a helper's name has no slash".into()));
    }
    let patience = patience();
    let mut child = tokio::process::Command::new(program(helper))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| problem(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read is not an error by itself: its exit code tells.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = match tokio::time::timeout(patience, child.wait_with_output()).await {
        Ok(output) => output.map_err(|e| problem(e.to_string()))?,
        Err(_) => return Err(problem(format!("no answer in {} s", patience.as_secs()))),
    };
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if words.contains("credentials not found") {
        return Ok(None);
    }
    Err(problem(format!("{}: {words}", output.status)))
}
