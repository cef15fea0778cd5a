//! The processes of a container, as ps(1) shows them.

use std::process::{Command, Stdio};

use crate::{Error, Supervisor};

/// A table of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Column names.
    pub titles: Vec<String>,
    /// One row a process.
    pub rows: Vec<Vec<String>>,
}

impl Supervisor {
    /// ps(1) with these options (empty: -ef), its rows of this container only.
    pub fn processes(&self, reference: &str, ps_args: &[String]) -> Result<ProcessTable, Error> {
        let id = self.store().resolve(reference)?;
        let seen = self.expect_live(&id, "list processes of")?;
        let cgroup = sys::cgroup::Paths::of(seen.pid).map_err(Error::system("find the cgroup"))?;
        let members = cgroup.members().map_err(Error::system("list the cgroup"))?;
        let mut command = Command::new("ps");
        match ps_args {
            [] => command.arg("-ef"),
            args => command.args(args),
        };
        let output = command.stdin(Stdio::null()).output().map_err(|_| Error::Program("ps".into()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            return Err(Error::invalid(format!("ps arguments {}", ps_args.join(" ")), words));
        }
        select(&String::from_utf8_lossy(&output.stdout), &members)
            .ok_or_else(|| Error::invalid("ps arguments", "the output has no PID column"))
    }
}

/// Cuts ps's text into columns (the last takes the rest of the line) and keeps the rows of these pids.
fn select(text: &str, pids: &[i32]) -> Option<ProcessTable> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let pid_column = titles.iter().position(|title| title == "PID")?;
    let mut rows = Vec::new();
    for line in lines {
        let mut rest = line.trim_start();
        let mut row = Vec::with_capacity(titles.len());
        for _ in 1..titles.len() {
            let (cell, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            row.push(cell.to_owned());
            rest = after.trim_start();
        }
        row.push(rest.trim_end().to_owned());
        let pid = row.get(pid_column).and_then(|cell| cell.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            rows.push(row);
        }
    }
    Some(ProcessTable { titles, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_and_whole_commands() {
        let text = "UID        PID  PPID CMD\nroot         1     0 /sbin/init a\nweb         42     7 sh -c 'x  y'\n";
        let table = select(text, &[42]);
        let row: Vec<String> = ["web", "42", "7", "sh -c 'x  y'"].map(str::to_owned).to_vec();
        assert_eq!(table.map(|table| table.rows), Some(vec![row]));
        assert_eq!(select("NAME\nx\n", &[1]), None);
    }
}
