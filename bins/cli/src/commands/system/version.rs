//! `pier version`

use api::engine::v1::VersionRequest;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::commands::say;
use console::Template;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// "json", or a template such as {{.Server.Version}}
    #[arg(short, long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let own = env!("CARGO_PKG_VERSION");
        let text = self.format.as_deref().is_none_or(str::is_empty);
        if text {
            // The client's part is known even when nobody answers.
            say(format_args!("Client: pier\n Version:      {own}"))?;
        }
        let server = client.engine().await?.version(VersionRequest {}).await.answer()?;
        let document = json!({
            "Client": {"Version": own, "Os": std::env::consts::OS},
            "Server": {
                "Version": server.version, "GitCommit": server.commit, "RustVersion": server.rust_version,
                "Os": server.os, "Arch": server.architecture, "KernelVersion": server.kernel, "Apis": server.apis,
            },
        });
        match self.format.as_deref() {
            None | Some("") => {
                say("\nServer: pierd")?;
                for (title, value) in [
                    ("Version", &server.version),
                    ("Commit", &server.commit),
                    ("Rust", &server.rust_version),
                    ("OS/Arch", &format!("{}/{}", server.os, server.architecture)),
                    ("Kernel", &server.kernel),
                    ("APIs", &server.apis.join(" ")),
                ] {
                    if !value.is_empty() {
                        say(format_args!(" {:<13} {value}", format!("{title}:")))?;
                    }
                }
            }
            Some("json") => console::print_json_line(&document)?,
            Some(template) => say(Template::parse(template)?.render(&document)?)?,
        }
        Ok(0)
    }
}
