//! `pier top`

use api::supervisor::v1::ListProcessesRequest;
use console::Table;

use crate::client::{Answer, Client};

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps_args: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = ListProcessesRequest { id: self.container, ps_args: self.ps_args };
        let answer = client.supervisor().await?.list_processes(request).await.answer()?;
        let mut table = Table::with_titles(&answer.titles);
        for process in answer.processes {
            table.row(process.values);
        }
        table.print()?;
        Ok(0)
    }
}
