//! `casemate registry admin project`.

use super::{BY, Desk, named, table};
use anyhow::Result;
use clap::Subcommand;
use registry_rules::{ProjectPath, Visibility};
use serde_json::json;

/// Subcommands for projects.
#[derive(Subcommand)]
pub enum Project {
    /// Add a project: repositories of its path and below it belong to it
    #[command(after_help = "Example:\n  casemate registry admin project add flightjs/flight --public")]
    Add {
        /// Its path
        path: ProjectPath,
        /// Anybody may pull, without a login too
        #[arg(long)]
        public: bool,
    },
    /// List projects
    List,
    /// Let anybody pull
    Publish {
        /// Path or number
        project: String,
    },
    /// Let only members pull, from reporters on
    Hide {
        /// Path or number
        project: String,
    },
    /// Remove a project with its rules, memberships and deploy tokens; its images stay in the registry
    Remove {
        /// Path or number
        project: String,
    },
}

/// Runs a subcommand.
pub async fn run(desk: &Desk, project: Project) -> Result<()> {
    let store = &desk.store;
    match project {
        Project::Add { path, public } => {
            let visibility = if public { Visibility::Public } else { Visibility::Private };
            store.create_project(BY, &path, visibility).await?;
        }
        Project::List => return list(desk).await,
        Project::Publish { project } => {
            let id = named::project(&*desk.now().await?, &project)?.id;
            store.set_visibility(BY, id, Visibility::Public).await?;
        }
        Project::Hide { project } => {
            let id = named::project(&*desk.now().await?, &project)?.id;
            store.set_visibility(BY, id, Visibility::Private).await?;
        }
        Project::Remove { project } => {
            let id = named::project(&*desk.now().await?, &project)?.id;
            store.delete_project(BY, id).await?;
        }
    }
    Ok(())
}

async fn list(desk: &Desk) -> Result<()> {
    let now = desk.now().await?;
    let mut projects: Vec<_> = now.projects.iter().collect();
    projects.sort_by(|a, b| a.path.cmp(&b.path));
    let rows: Vec<_> = projects
        .into_iter()
        .map(|project| {
            json!({
                "id": project.id, "path": project.path.as_str(), "public": project.visibility == Visibility::Public,
                "rules": project.rules().len(), "tag_rules": project.tag_rules().len(),
            })
        })
        .collect();
    table::rows(desk.json, &["id", "path", "public", "rules", "tag_rules"], &rows)
}
