//! `casemate registry admin member`.

use super::{BY, Desk, named, table};
use anyhow::Result;
use clap::Subcommand;
use registry_rules::Role;
use serde_json::json;

/// Subcommands for memberships.
#[derive(Subcommand)]
pub enum Member {
    /// Give a user a role in a project or a group
    #[command(
        after_help = "Example:\n  casemate registry admin member set flightjs/flight ann maintainer\n\nReporters pull, developers push, \
        maintainers delete and edit rules, owners also make owners. Of the roles in a project and the groups above it the highest counts."
    )]
    Set {
        /// Path of the project or group
        path: String,
        /// The user
        user: String,
        /// guest, reporter, developer, maintainer or owner
        role: Role,
    },
    /// List the direct members of a project or group
    List {
        /// Path of the project or group
        path: String,
    },
    /// Take a role away
    Remove {
        /// Path of the project or group
        path: String,
        /// The user
        user: String,
    },
}

/// Runs a subcommand.
pub async fn run(desk: &Desk, member: Member) -> Result<()> {
    let now = desk.now().await?;
    match member {
        Member::Set { path, user, role } => {
            let (of, user) = (named::holder(&now, &path)?, named::user(&now, &user)?.id);
            desk.store.set_member(BY, of, user, Some(role)).await?;
        }
        Member::Remove { path, user } => {
            let (of, user) = (named::holder(&now, &path)?, named::user(&now, &user)?.id);
            desk.store.set_member(BY, of, user, None).await?;
        }
        Member::List { path } => {
            let members = now.members(named::holder(&now, &path)?);
            let name = |id| now.user_by_id(id).map(|user| user.name.as_str());
            let rows: Vec<_> = members
                .into_iter()
                .map(|(id, role)| json!({ "user": name(id), "role": role.word() }))
                .collect();
            table::rows(desk.json, &["user", "role"], &rows)?;
        }
    }
    Ok(())
}
