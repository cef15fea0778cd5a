//! What commands print: the OCI state, lists, tables.

use std::io::Write;

use runtime::state::{Container, Status};
use serde_json::{Value, json};

/// A container as `state` prints it.
pub fn state(container: &Container) -> Value {
    let record = &container.record;
    let live = !matches!(container.status, Status::Stopped | Status::Creating);
    let mut value = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": record.init.filter(|_| live).map_or(0, |i| i.pid),
        "status": container.status.as_str(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": user_name(record.owner),
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    value
}

/// The name of a user, from the host's passwd file; empty if unknown.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&id.as_str()))
        .map_or_else(String::new, |fields| fields[0].to_owned())
}

/// Rows under titles, padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}    "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints; a reader that went away is no error.
pub fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("cannot write: {e}")),
        _ => Ok(()),
    }
}

/// Prints JSON, indented as runc does.
pub fn print_json(value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    print(&(text + "\n"))
}

/// The lines of `ps` whose pid is one of the container's.
pub fn filter_ps(text: &str, pids: &[i32]) -> Result<String, String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_ascii_whitespace().position(|t| t == "PID").ok_or("ps: there is no PID column")?;
    let ours = |line: &&str| {
        line.split_ascii_whitespace().nth(column).and_then(|p| p.parse().ok()).is_some_and(|p: i32| pids.contains(&p))
    };
    let mut out = format!("{head}\n");
    lines.filter(ours).for_each(|line| out.push_str(&format!("{line}\n")));
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ps_lines() {
        let text = "UID PID CMD\nroot 1 init\nroot 12 sh -c 1\n";
        assert_eq!(filter_ps(text, &[12]).unwrap(), "UID PID CMD\nroot 12 sh -c 1\n");
        assert!(filter_ps("UID CMD\n", &[]).is_err());
    }

    #[test]
    fn columns() {
        let rows = vec![vec!["ID".to_owned(), "PID".to_owned()], vec!["a".to_owned(), "1".to_owned()]];
        assert_eq!(table(&rows), "ID          PID\na           1\n");
    }
}
