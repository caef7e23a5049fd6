//! `casemate registry admin import` and `export`: groups, projects, members and rules as a TOML file, which may live in git.

use super::{BY, Desk};
use crate::input;
use crate::output::print;
use agent_protocol::escaped;
use anyhow::{Context, Result, ensure};
use clap::Args;
use registry_store::document::{Document, difference};
use serde_json::json;
use std::path::PathBuf;

pub const IMPORT_EXAMPLES: &str = "\
Examples:
  casemate registry admin export > rules.toml
  casemate registry admin import rules.toml --dry-run
  casemate registry admin import rules.toml

All changes are made at once or, if one of them is refused, none. What the file does not list is removed, except for users and tokens. Each change is a line
of the output. With --dry-run nothing is changed, and the exit code is 1 if something would be.";

/// Which file.
#[derive(Args)]
pub struct Import {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Also delete groups and projects that the file lacks, with the tokens of these projects
    #[arg(long)]
    delete: bool,
}

/// Makes the database what the file says. `Ok(false)`: a dry run has found a difference.
pub async fn import(desk: &Desk, import: &Import) -> Result<bool> {
    let name = input::shown(&import.file);
    let document = Document::parse(&input::text(&import.file)?).with_context(|| format!("{name} cannot be used"))?;
    let now = desk.now().await?;
    let changes = difference(&now, &document).with_context(|| format!("{name} cannot be imported"))?;
    // A file that was cut between two tables is a whole document too.
    let deleted = changes.iter().filter(|change| change.deletes_a_whole()).count();
    ensure!(
        import.dry_run || import.delete || deleted == 0,
        "{name} lacks {deleted} of the groups and projects that exist: --delete deletes them, --dry-run shows them"
    );
    if !import.dry_run && !changes.is_empty() {
        desk.store
            .apply(BY, &changes)
            .await
            .with_context(|| format!("{name} is not imported"))?;
    }
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    match desk.json {
        true => print(&json!({ "changes": lines, "made": !import.dry_run }).to_string())?,
        false => lines.iter().try_for_each(|line| print(&escaped(line)))?,
    }
    Ok(!import.dry_run || changes.is_empty())
}

/// Prints the file that makes another database the same.
pub async fn export(desk: &Desk) -> Result<()> {
    let now = desk.now().await?;
    let text = Document::of(&now).to_toml();
    match desk.json {
        true => print(&json!({ "toml": text }).to_string()),
        false => print(text.trim_end()),
    }
}
