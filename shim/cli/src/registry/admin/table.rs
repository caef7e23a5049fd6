//! Lists of the database for people and for programs.

use crate::output::print;
use agent_protocol::guest_text;
use anyhow::Result;
use serde_json::Value;

/// Prints objects: as a JSON array, or as a table with these of their fields as columns.
pub fn rows(json: bool, columns: &[&str], rows: &[Value]) -> Result<()> {
    if json {
        return print(&serde_json::to_string(rows)?);
    }
    lines(columns, rows).iter().try_for_each(|line| print(line))
}

/// A heading, and a line for each object; the last column is as wide as it is.
fn lines(columns: &[&str], rows: &[Value]) -> Vec<String> {
    let heading = columns.iter().map(|column| column.replace('_', " ").to_uppercase()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|column| cell(&row[*column])).collect());
    let table: Vec<Vec<String>> = std::iter::once(heading).chain(cells).collect();
    let width = |n: usize| table.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // Names in an audit trail are those of whoever asked.
        Value::String(text) => guest_text(text),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_texts_are_harmless() {
        let rows = [
            json!({"id": 1, "who": "ann", "may": ["read", "write"], "gone": null}),
            json!({"id": 20, "who": "\u{1b}[2Jb", "may": [], "gone": true}),
        ];
        assert_eq!(
            lines(&["id", "who", "may", "gone"], &rows),
            ["ID  WHO   MAY         GONE", "1   ann   read,write  -", "20  [2Jb  -           yes"]
        );
    }
}
