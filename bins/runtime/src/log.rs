//! The log contract of runc's callers: a failing command appends exactly one error object, and nothing else, to `--log`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where messages go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<PathBuf>,
    json: bool,
    debug: bool,
}

impl Log {
    /// As the global flags say.
    pub fn new(file: Option<PathBuf>, format: Option<&str>, debug: bool) -> Result<Self, String> {
        let json = match format {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => return Err(format!("unknown log-format {other:?}")),
        };
        Ok(Self { file, json, debug })
    }

    /// Something that did not stop us. Callers that read the log want to see errors only; a terminal may see it.
    pub fn warn(&self, message: &str) {
        match &self.file {
            None => eprintln!("Warning: {message}"),
            // podman reads its JSON log as one object: the error.
            Some(file) if self.debug || !self.json => self.append(file, "warning", message),
            Some(_) => {}
        }
    }

    /// What is being done; only with `--debug`.
    pub fn debug(&self, message: &str) {
        match &self.file {
            _ if !self.debug => {}
            None => eprintln!("{}", self.line("debug", message)),
            Some(file) => self.append(file, "debug", message),
        }
    }

    /// The reason of the failure.
    pub fn error(&self, message: &str) {
        if let Some(file) = &self.file {
            self.append(file, "error", message);
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if self.json {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        } else {
            format!("time={time:?} level={level} msg={message:?}")
        }
    }

    fn append(&self, path: &Path, level: &str, message: &str) {
        let line = self.line(level, message);
        let written = File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
        if let Err(e) = written {
            eprintln!("Warning: cannot write the log {}: {e}", path.display());
        }
    }
}
