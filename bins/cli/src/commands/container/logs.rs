//! `pier logs`

use std::io::Write;

use anyhow::Context;
use api::supervisor::v1::{LogEntry, StdioStream, StreamLogsRequest};

use crate::client::{Answer, Client, next};
use crate::flags::time::{instant_ns, now_ns};
use crate::show::event::time;

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// The last lines, or "all"
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES")]
    tail: String,
    /// From this time on: RFC 3339, seconds since the epoch, or a duration back
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let now = now_ns();
        let instant = |text: &Option<String>| text.as_deref().map_or(Ok(0), |text| instant_ns(text, now));
        let tail = match self.tail.as_str() {
            "all" | "-1" => None,
            number => {
                Some(number.parse().with_context(|| format!("invalid --tail {number:?}: expected a number or all"))?)
            }
        };
        let request = StreamLogsRequest {
            id: self.container.clone(),
            follow: self.follow,
            tail,
            since_unix_nano: instant(&self.since)?,
            until_unix_nano: instant(&self.until)?,
            stdout: true,
            stderr: true,
        };
        let mut stream = client.supervisor().await?.stream_logs(request).await.answer()?;
        let mut writer = Writer { timestamps: self.timestamps, continued: [false; 2] };
        while let Some(message) = next(&mut stream).await? {
            for entry in &message.entries {
                writer.write(entry)?;
            }
        }
        Ok(0)
    }
}

/// Puts times only where a line begins: long lines come in pieces.
struct Writer {
    timestamps: bool,
    continued: [bool; 2],
}

impl Writer {
    fn write(&mut self, entry: &LogEntry) -> std::io::Result<()> {
        let stderr = entry.stream() == StdioStream::Stderr;
        let continued = &mut self.continued[usize::from(stderr)];
        let mut text = Vec::with_capacity(entry.data.len() + 32);
        if self.timestamps && !*continued {
            text.extend_from_slice(format!("{} ", time(entry.time_unix_nano)).as_bytes());
        }
        *continued = entry.data.last() != Some(&b'\n');
        text.extend_from_slice(&entry.data);
        if stderr {
            return std::io::stderr().write_all(&text);
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()
    }
}
