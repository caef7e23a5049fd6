//! `casemate registry admin group`.

use super::{BY, Desk, table};
use anyhow::{Context, Result};
use clap::Subcommand;
use registry_rules::ProjectPath;
use serde_json::json;

/// Subcommands for groups.
#[derive(Subcommand)]
pub enum Group {
    /// Add a group
    #[command(after_help = "Example:\n  casemate registry admin group add flightjs")]
    Add {
        /// Its path
        path: ProjectPath,
    },
    /// List groups
    List,
    /// Remove a group; its projects stay
    Remove {
        /// Its path
        path: ProjectPath,
    },
}

/// Runs a subcommand.
pub async fn run(desk: &Desk, group: Group) -> Result<()> {
    let store = &desk.store;
    match group {
        Group::Add { path } => drop(store.create_group(BY, &path).await?),
        Group::Remove { path } => {
            let now = desk.now().await?;
            let group = now.group(path.as_str()).with_context(|| format!("there is no group {path}"))?;
            store.delete_group(BY, group.id).await?;
        }
        Group::List => {
            let now = desk.now().await?;
            let mut groups: Vec<_> = now.groups().collect();
            groups.sort_by(|a, b| a.path.cmp(&b.path));
            let rows: Vec<_> = groups
                .into_iter()
                .map(|group| json!({ "id": group.id, "path": group.path.as_str() }))
                .collect();
            table::rows(desk.json, &["id", "path"], &rows)?;
        }
    }
    Ok(())
}
