//! `--format`, `--quiet` and the default table of every listing verb.

use std::io::Write;

use console::{Table, Template};
use serde_json::Value;

/// A column: its title, and its key in the JSON object of a row.
pub type Column = (&'static str, &'static str);

/// Prints rows (JSON objects with docker's keys) as asked: a table of `columns`, JSON lines ("json"), a template, or a
/// table made by one ("table {{.A}}\t{{.B}}").
pub fn print(rows: &[Value], columns: &[Column], format: Option<&str>) -> anyhow::Result<()> {
    let text = text(rows, columns, format)?;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn text(rows: &[Value], columns: &[Column], format: Option<&str>) -> anyhow::Result<String> {
    let lines = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    match format.map(str::trim) {
        None | Some("" | "table") => {
            let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
            let mut table = Table::with_titles(&titles);
            for row in rows {
                table.row(columns.iter().map(|(_, key)| cell(&row[*key])));
            }
            Ok(table.render())
        }
        Some("json") => Ok(lines(rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?)),
        Some(template) => {
            let table = template.strip_prefix("table ");
            let template = Template::parse(table.unwrap_or(template))?;
            let rendered = rows.iter().map(|row| template.render(row)).collect::<anyhow::Result<Vec<_>>>()?;
            if table.is_none() {
                return Ok(lines(rendered));
            }
            let title = |key: &str| {
                columns.iter().find(|(_, known)| *known == key).map_or_else(|| key.to_uppercase(), |it| it.0.to_owned())
            };
            let split = |line: &str| line.split('\t').map(Into::into).collect::<Vec<String>>();
            let mut table = Table::with_titles(&split(&template.heading(title)));
            for line in &rendered {
                table.row(split(line));
            }
            Ok(table.render())
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Documents of an `inspect`: one JSON array, or a template for each.
pub fn inspect(documents: &[Value], format: Option<&str>) -> anyhow::Result<()> {
    match format {
        None | Some("") => console::print_json(&documents),
        Some("json") => console::print_json_line(&documents),
        Some(template) => {
            let template = Template::parse(template)?;
            for document in documents {
                writeln!(std::io::stdout(), "{}", template.render(document)?)?;
            }
            Ok(())
        }
    }
}

/// The first twelve characters of an id, without "sha256:", unless all are wanted.
pub fn id(id: &str, whole: bool) -> String {
    if whole {
        return id.to_owned();
    }
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn forms() {
        let rows = [json!({"ID": "1", "Names": "web"}), json!({"ID": "22", "Names": "db"})];
        let columns = [("CONTAINER ID", "ID"), ("NAMES", "Names")];
        let ask = |format| text(&rows, &columns, format).unwrap();
        assert_eq!(ask(None), "CONTAINER ID   NAMES\n1              web\n22             db\n");
        assert_eq!(ask(Some("json")), "{\"ID\":\"1\",\"Names\":\"web\"}\n{\"ID\":\"22\",\"Names\":\"db\"}\n");
        assert_eq!(ask(Some("{{.Names}}")), "web\ndb\n");
        assert_eq!(ask(Some(r"table {{.Names}}\t{{.ID}}")), "NAMES   CONTAINER ID\nweb     1\ndb      22\n");
    }
}
