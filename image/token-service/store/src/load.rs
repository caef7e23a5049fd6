//! Reads a snapshot, or those parts of one that changed.

use crate::database::Database;
use crate::snapshot::{Groups, Members, Tokens};
use crate::{Group, Holder, PasswordHash, Snapshot, StoreError, TokenDigest, TokenKind, TokenRecord, User};
use futures_util::TryStreamExt;
use registry_rules::{
    MinimumLevel, PathPattern, Project, ProjectId, ProjectPath, Projects, Role, Rule, TagLevels, TagPattern, TagRule, Visibility,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::HashMap;
use std::sync::Arc;

const STATE: &str = "SELECT version, users, new_users, groups, projects, members, tokens, new_tokens FROM state";

/// Before every version.
const ALL: i64 = -1;

/// The number of edits so far.
pub(crate) async fn version(database: &Database) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT version FROM state").fetch_one(database.judge()?).await?;
    Ok(row.try_get(0)?)
}

/// The snapshot as of now, with every part of `known` that did not change since.
pub(crate) async fn load(database: &Database, known: Option<&Snapshot>) -> Result<Snapshot, StoreError> {
    database.judge()?;
    let mut transaction = database.begin_reading().await?;
    let state = sqlx::query(STATE).fetch_one(&mut *transaction).await?;
    let version: i64 = state.try_get("version")?;
    // A database that was put back to an earlier state shares nothing with what is known.
    let known = known.filter(|known| known.version <= version);
    let kept = |part: &str| -> Result<Option<&Snapshot>, StoreError> {
        let changed: i64 = state.try_get(part)?;
        Ok(known.filter(|known| known.version >= changed))
    };
    let connection = &mut *transaction;
    let users = match (kept("users")?, kept("new_users")?) {
        (Some(known), Some(_)) => Arc::clone(&known.users),
        (Some(known), None) => Arc::new(known.users.with(users(connection, known.version).await?)),
        (None, _) => Arc::new(users(connection, ALL).await?.into_iter().collect()),
    };
    let groups = match kept("groups")? {
        Some(known) => Arc::clone(&known.groups),
        None => Arc::new(groups(connection).await?),
    };
    let projects = match kept("projects")? {
        Some(known) => Arc::clone(&known.projects),
        None => Arc::new(projects(connection, known.map(|known| &*known.projects)).await?),
    };
    let members = match kept("members")? {
        Some(known) => Arc::clone(&known.members),
        None => Arc::new(members(connection).await?),
    };
    let tokens = match (kept("tokens")?, kept("new_tokens")?) {
        (Some(known), Some(_)) => Arc::clone(&known.tokens),
        (Some(known), None) => Arc::new(tokens(connection, known.version, known.tokens.as_ref().clone()).await?),
        (None, _) => Arc::new(tokens(connection, ALL, Tokens::new()).await?),
    };
    transaction.commit().await?;
    Ok(Snapshot {
        projects,
        version,
        users,
        groups,
        members,
        tokens,
    })
}

/// The users that came or changed after a version.
async fn users(connection: &mut AnyConnection, after: i64) -> Result<Vec<User>, StoreError> {
    let query = "SELECT id, name, password, administrator, blocked FROM users WHERE changed > $1";
    let mut rows = sqlx::query(query).bind(after).fetch(connection);
    let mut users = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let password: Option<&str> = row.try_get(2)?;
        users.push(User {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            password: password.map(|phc| parsed::<PasswordHash>(phc, "a password")).transpose()?,
            administrator: flag(&row, 3)?,
            blocked: flag(&row, 4)?,
        });
    }
    Ok(users)
}

async fn groups(connection: &mut AnyConnection) -> Result<Groups, StoreError> {
    let mut rows = sqlx::query("SELECT id, path FROM groups").fetch(connection);
    let mut groups = Vec::new();
    while let Some(row) = rows.try_next().await? {
        groups.push(Group {
            id: row.try_get(0)?,
            path: parsed(row.try_get(1)?, "a group's path")?,
        });
    }
    Ok(groups.into_iter().collect())
}

async fn members(connection: &mut AnyConnection) -> Result<Members, StoreError> {
    let mut members = Members::new();
    let both = [
        (
            "SELECT project_id, user_id, role FROM project_members",
            Holder::Project as fn(i64) -> Holder,
        ),
        ("SELECT group_id, user_id, role FROM group_members", Holder::Group),
    ];
    for (query, holder) in both {
        let mut rows = sqlx::query(query).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let role: Role = parsed(row.try_get(2)?, "a role")?;
            members.insert((holder(row.try_get(0)?), row.try_get(1)?), role);
        }
    }
    Ok(members)
}

async fn projects(connection: &mut AnyConnection, known: Option<&Projects>) -> Result<Projects, StoreError> {
    let mut rules = rules(connection).await?;
    let mut tag_rules = tag_rules(connection, known).await?;
    let mut rows = sqlx::query("SELECT id, path, visibility FROM projects").fetch(connection);
    let mut projects = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let id = row.try_get(0)?;
        let path: ProjectPath = parsed(row.try_get(1)?, "a project's path")?;
        let visibility = match row.try_get(2)? {
            "public" => Visibility::Public,
            "private" => Visibility::Private,
            _ => return Err(StoreError::corrupt("a project's visibility")),
        };
        let own_rules = rules.remove(&id).unwrap_or_default();
        let own_tag_rules = tag_rules.remove(&id).unwrap_or_default();
        projects.push(Project::new(id, path, visibility, own_rules, own_tag_rules));
    }
    Ok(projects.into_iter().collect())
}

async fn rules(connection: &mut AnyConnection) -> Result<HashMap<ProjectId, Vec<Rule>>, StoreError> {
    let mut rows = sqlx::query("SELECT id, project_id, pattern, push, remove FROM rules ORDER BY id").fetch(connection);
    let mut rules = HashMap::<ProjectId, Vec<Rule>>::new();
    while let Some(row) = rows.try_next().await? {
        let rule = Rule {
            id: row.try_get(0)?,
            pattern: PathPattern::new(row.try_get(2)?),
            push: level(&row, 3)?,
            delete: level(&row, 4)?,
        };
        rules.entry(row.try_get(1)?).or_default().push(rule);
    }
    Ok(rules)
}

async fn tag_rules(connection: &mut AnyConnection, known: Option<&Projects>) -> Result<HashMap<ProjectId, Vec<TagRule>>, StoreError> {
    // A pattern is compiled to see whether it is one, which takes longer than all the rest; those that are known were compiled.
    let known: HashMap<&str, &TagPattern> = known
        .into_iter()
        .flat_map(|projects| projects.iter())
        .flat_map(|project| project.tag_rules())
        .map(|rule| (rule.pattern.as_str(), &rule.pattern))
        .collect();
    let mut rows = sqlx::query("SELECT id, project_id, pattern, push, remove FROM tag_rules ORDER BY id").fetch(connection);
    let mut rules = HashMap::<ProjectId, Vec<TagRule>>::new();
    while let Some(row) = rows.try_next().await? {
        let text: &str = row.try_get(2)?;
        let pattern = match known.get(text) {
            Some(pattern) => (*pattern).clone(),
            None => TagPattern::new(text).map_err(|_| StoreError::corrupt("a tag rule's pattern"))?,
        };
        let levels = level(&row, 3)?
            .zip(level(&row, 4)?)
            .map(|(push, delete)| TagLevels { push, delete });
        let id = row.try_get(0)?;
        rules.entry(row.try_get(1)?).or_default().push(TagRule { id, pattern, levels });
    }
    Ok(rules)
}

/// The tokens that are known, and those that came after a version.
async fn tokens(connection: &mut AnyConnection, after: i64, mut tokens: Tokens) -> Result<Tokens, StoreError> {
    let query = "SELECT id, digest, kind, user_id, project_id, name, login, reads, writes, api, created, expires FROM tokens
        WHERE changed > $1";
    let mut rows = sqlx::query(query).bind(after).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let digest = TokenDigest::from_hex(row.try_get(1)?).ok_or_else(|| StoreError::corrupt("a token's digest"))?;
        let (user, project): (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
        let login: Option<String> = row.try_get(6)?;
        let (read, write, api) = (flag(&row, 7)?, flag(&row, 8)?, flag(&row, 9)?);
        let kind = match (row.try_get::<&str, _>(2)?, user, project, login) {
            ("personal", Some(user), _, _) => TokenKind::Personal { user, read, write, api },
            ("deploy", _, Some(project), Some(login)) => TokenKind::Deploy {
                project,
                login,
                read,
                write,
            },
            ("job", Some(user), Some(project), _) => TokenKind::Job { user, project },
            _ => return Err(StoreError::corrupt("a token's kind")),
        };
        let record = TokenRecord {
            id: row.try_get(0)?,
            kind,
            name: row.try_get(5)?,
            created: row.try_get(10)?,
            expires: row.try_get(11)?,
        };
        tokens.insert(digest, Arc::new(record));
    }
    Ok(tokens)
}

fn flag(row: &AnyRow, column: usize) -> Result<bool, StoreError> {
    let number: i64 = row.try_get(column)?;
    Ok(number != 0)
}

fn level(row: &AnyRow, column: usize) -> Result<Option<MinimumLevel>, StoreError> {
    let word: Option<&str> = row.try_get(column)?;
    word.map(|word| parsed(word, "a level")).transpose()
}

fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::corrupt(what))
}
