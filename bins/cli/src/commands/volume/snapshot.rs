//! `pier volume snapshot ...`

use api::volume::v1::{
    CreateSnapshotRequest, ListSnapshotsRequest, RemoveSnapshotRequest, RestoreSnapshotRequest, Snapshot,
};
use clap::Subcommand;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::commands::say;
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 3] = [("SNAPSHOT", "Name"), ("CREATED", "CreatedAt"), ("SIZE", "Size")];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Keep the present state of a volume
    Create { volume: String, name: String },
    /// List the states that were kept
    #[command(visible_alias = "list")]
    Ls {
        volume: String,
        /// "json", a template such as {{.Name}}, or "table TEMPLATE"
        #[arg(long)]
        format: Option<String>,
    },
    /// Remove one
    Rm { volume: String, name: String },
    /// Put one in place of the volume's content, which no container may use
    Restore { volume: String, name: String },
}

impl Verb {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut tool = client.volume().await?;
        match self {
            Self::Create { volume, name } => {
                tool.create_snapshot(CreateSnapshotRequest { volume, name: name.clone() }).await.answer()?;
                say(name)?;
            }
            Self::Ls { volume, format } => {
                let found = tool.list_snapshots(ListSnapshotsRequest { volume }).await.answer()?.snapshots;
                let row = |it: &Snapshot| {
                    let size = console::human_size(it.size_bytes.max(0).unsigned_abs());
                    json!({"Name": it.name, "CreatedAt": it.created_at, "Size": size})
                };
                let rows: Vec<_> = found.iter().map(row).collect();
                listing::print(&rows, &COLUMNS, format.as_deref())?;
            }
            Self::Rm { volume, name } => {
                tool.remove_snapshot(RemoveSnapshotRequest { volume, name }).await.answer()?;
            }
            Self::Restore { volume, name } => {
                tool.restore_snapshot(RestoreSnapshotRequest { volume, name }).await.answer()?;
            }
        }
        Ok(0)
    }
}
