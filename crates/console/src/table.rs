//! Tables and JSON on stdout.
use comfy_table::{ContentArrangement, presets};
use std::io::Write;

/// What a listing verb prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// Columns without borders, three spaces between them, as docker prints them.
pub struct Table(comfy_table::Table);

impl Table {
    /// With these column titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self::with_titles(&titles.map(String::from))
    }

    /// With column titles known at run time.
    pub fn with_titles(titles: &[String]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(titles);
        Self(table)
    }

    /// One more row.
    pub fn row<I: IntoIterator<Item = S>, S: Into<String>>(&mut self, cells: I) -> &mut Self {
        self.0.add_row(cells.into_iter().map(Into::into).collect::<Vec<String>>());
        self
    }

    /// As text, each line ended.
    pub fn render(&mut self) -> String {
        for column in self.0.column_iter_mut() {
            column.set_padding((0, 3));
        }
        self.0.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// To stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn print(&mut self) -> anyhow::Result<()> {
        let text = self.render();
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

/// A value as indented JSON and a newline on stdout.
pub fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// A value as one line of JSON on stdout.
pub fn print_json_line<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = Table::new(["ID", "NAME"]).row(["1", "a"]).row(["22222", "bb"]).render();
        assert_eq!(text, "ID      NAME\n1       a\n22222   bb\n");
    }
}
