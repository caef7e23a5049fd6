//! `casemate registry admin user`.

use super::password::Password;
use super::{BY, Desk, named, table};
use anyhow::Result;
use clap::{ArgAction, Subcommand};
use serde_json::json;

/// Subcommands for users.
#[derive(Subcommand)]
pub enum User {
    /// Add a user
    #[command(after_help = "Examples:\n  casemate registry admin user add ann\n  casemate registry admin user add robot --no-password")]
    Add {
        /// Name to log in with
        name: String,
        /// An administrator: passes every level but no_one
        #[arg(long)]
        administrator: bool,
        #[command(flatten)]
        password: Password,
        /// No password: the user logs in with tokens only
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
    },
    /// List users
    List,
    /// Give a user another password
    Password {
        /// The user
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Take a user's rights away until `unblock`; tokens of the user are useless too
    Block {
        /// The user
        name: String,
    },
    /// Give a blocked user the rights again
    Unblock {
        /// The user
        name: String,
    },
    /// Make a user an administrator, or no longer one
    Administrator {
        /// The user
        name: String,
        /// `true` or `false`
        #[arg(action = ArgAction::Set)]
        administrator: bool,
    },
    /// Remove a user with all memberships and tokens
    Remove {
        /// The user
        name: String,
    },
}

/// Runs a subcommand.
pub async fn run(desk: &Desk, user: User) -> Result<()> {
    let store = &desk.store;
    match user {
        User::Add {
            name,
            administrator,
            password,
            no_password,
        } => {
            let hash = if no_password { None } else { Some(password.hash()?) };
            store.create_user(BY, &name, hash.as_ref(), administrator).await?;
        }
        User::List => return list(desk).await,
        User::Password { name, password } => {
            let id = named::user(&*desk.now().await?, &name)?.id;
            store.set_password(BY, id, Some(&password.hash()?)).await?;
        }
        User::Block { name } => {
            let id = named::user(&*desk.now().await?, &name)?.id;
            store.set_blocked(BY, id, true).await?;
        }
        User::Unblock { name } => {
            let id = named::user(&*desk.now().await?, &name)?.id;
            store.set_blocked(BY, id, false).await?;
        }
        User::Administrator { name, administrator } => {
            let id = named::user(&*desk.now().await?, &name)?.id;
            store.set_administrator(BY, id, administrator).await?;
        }
        User::Remove { name } => {
            let id = named::user(&*desk.now().await?, &name)?.id;
            store.delete_user(BY, id).await?;
        }
    }
    Ok(())
}

async fn list(desk: &Desk) -> Result<()> {
    let now = desk.now().await?;
    let mut users: Vec<_> = now.users().collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = users
        .into_iter()
        .map(|user| {
            json!({
                "id": user.id, "name": user.name, "administrator": user.administrator, "blocked": user.blocked,
                "password": user.password.is_some(),
            })
        })
        .collect();
    table::rows(desk.json, &["id", "name", "administrator", "blocked", "password"], &rows)
}
