//! Edits of tokens.

use super::{Edit, Note, Part};
use crate::audit::acts;
use crate::{EditError, JOB_LOGINS, NewSecret, NewToken, Store, TokenDigest, TokenId, TokenKind, TokenRecord, is_user_name};
use registry_rules::ProjectId;
use sqlx::Row;

/// Most personal tokens of one user, and most deploy tokens of one project.
const TOKENS_MAX: i64 = 1000;
/// Most job tokens of one project that have not ended.
const JOB_TOKENS_MAX: i64 = 10_000;
/// Longest name in characters.
const NAME_MAX_CHARS: usize = 255;
/// How long a job token may last, in seconds: 30 days.
const JOB_MAX_SECONDS: i64 = 30 * 86_400;
/// How long a job token stays after its end, in seconds, so that a clock that was put back finds it.
const JOB_KEPT_SECONDS: i64 = 3600;
/// How many job tokens have ended when they are removed.
const JOBS_REMOVED: i64 = 1000;

impl Store {
    /// Makes a token, and its secret, which the database does not keep.
    ///
    /// # Errors
    /// No such user or project; an invalid name, login or end; a login that is a user's or another project's; too many tokens.
    pub async fn create_token(&self, by: &str, new: &NewToken) -> Result<(TokenRecord, NewSecret), EditError> {
        self.edit(by, async |edit| edit.create_token(new).await).await
    }

    /// Ends a token for good.
    ///
    /// # Errors
    /// No such token.
    pub async fn revoke_token(&self, by: &str, token: TokenId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.revoke_token(token).await).await
    }
}

impl Edit {
    async fn create_token(&mut self, new: &NewToken) -> Result<(TokenRecord, NewSecret), EditError> {
        let (kind, name, expires) = parts(new);
        let now = self.now_seconds();
        if expires.is_some_and(|end| end <= now) {
            return Err(EditError::Invalid("a token ends in the future".to_owned()));
        }
        let subject = match &kind {
            TokenKind::Personal { user, read, write, api } => {
                named(name)?;
                scoped(*read || *write || *api)?;
                let query = "SELECT COUNT(*) FROM tokens WHERE user_id = $1 AND kind = 'personal'";
                self.limit(query, *user, TOKENS_MAX).await?;
                self.user_name(*user).await?
            }
            TokenKind::Deploy {
                project,
                login,
                read,
                write,
            } => {
                named(name)?;
                scoped(*read || *write)?;
                let path = self.project_path(*project).await?;
                let query = "SELECT COUNT(*) FROM tokens WHERE project_id = $1 AND kind = 'deploy'";
                self.limit(query, *project, TOKENS_MAX).await?;
                self.free_login(*project, login).await?;
                path
            }
            TokenKind::Job { user, project } => {
                if expires.is_some_and(|end| end > now.saturating_add(JOB_MAX_SECONDS)) {
                    return Err(EditError::Invalid("a job token lasts at most 30 days".to_owned()));
                }
                self.user_name(*user).await?;
                let path = self.project_path(*project).await?;
                self.remove_ended_jobs().await?;
                self.limit_jobs(*project).await?;
                path
            }
        };
        let secret = kind.new_secret()?;
        let id = self.insert_token(&kind, name, expires, &TokenDigest::of(secret.expose())).await?;
        self.note_token("token.create", subject, id, &kind, name);
        let record = TokenRecord {
            id,
            kind,
            name: name.to_owned(),
            created: now,
            expires,
        };
        Ok((record, secret))
    }

    async fn insert_token(
        &mut self,
        kind: &TokenKind,
        name: &str,
        expires: Option<i64>,
        digest: &TokenDigest,
    ) -> Result<TokenId, EditError> {
        let (login, read, write, api) = match kind {
            TokenKind::Personal { read, write, api, .. } => (None, *read, *write, *api),
            TokenKind::Deploy { login, read, write, .. } => (Some(login.as_str()), *read, *write, false),
            TokenKind::Job { .. } => (None, false, false, false),
        };
        let query = "INSERT INTO tokens (digest, kind, user_id, project_id, name, login, reads, writes, api, created, expires, changed)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id";
        let now = self.now_seconds();
        let row = sqlx::query(query)
            .bind(digest.hex())
            .bind(kind.word())
            .bind(kind.user())
            .bind(kind.project())
            .bind(name)
            .bind(login)
            .bind(i64::from(read))
            .bind(i64::from(write))
            .bind(i64::from(api))
            .bind(now)
            .bind(expires)
            .bind(self.version)
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn revoke_token(&mut self, token: TokenId) -> Result<(), EditError> {
        let query = "SELECT COALESCE(projects.path, users.name), tokens.kind, tokens.name, tokens.project_id
            FROM tokens LEFT JOIN projects ON projects.id = tokens.project_id LEFT JOIN users ON users.id = tokens.user_id
            WHERE tokens.id = $1";
        let row = sqlx::query(query).bind(token).fetch_optional(self.connection()).await?;
        let row = row.ok_or(EditError::NotFound("token"))?;
        let (kind, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let note = Note {
            subject: row.try_get(0)?,
            detail: format!("{token} {kind} {name}"),
            project: row.try_get(3)?,
            rule: None,
        };
        sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(token)
            .execute(self.connection())
            .await?;
        self.note(&[Part::Tokens], "token.revoke", note);
        Ok(())
    }

    /// Removes job tokens that ended long ago, when there are many: readers have to load all tokens then.
    async fn remove_ended_jobs(&mut self) -> Result<(), EditError> {
        let ended = self.now_seconds().saturating_sub(JOB_KEPT_SECONDS);
        let query = "SELECT COUNT(*) FROM tokens WHERE kind = 'job' AND expires < $1";
        if self.count(query, ended).await? < JOBS_REMOVED {
            return Ok(());
        }
        sqlx::query("DELETE FROM tokens WHERE kind = 'job' AND expires < $1")
            .bind(ended)
            .execute(self.connection())
            .await?;
        self.changed.push(Part::Tokens);
        Ok(())
    }

    async fn limit_jobs(&mut self, project: ProjectId) -> Result<(), EditError> {
        let now = self.now_seconds();
        let row = sqlx::query("SELECT COUNT(*) FROM tokens WHERE project_id = $1 AND kind = 'job' AND expires > $2")
            .bind(project)
            .bind(now)
            .fetch_one(self.connection())
            .await?;
        let running: i64 = row.try_get(0)?;
        if running >= JOB_TOKENS_MAX {
            return Err(EditError::Limit("Maximum number of tokens have been reached."));
        }
        Ok(())
    }

    async fn user_name(&mut self, user: i64) -> Result<String, EditError> {
        let name = self.text("SELECT name FROM users WHERE id = $1", user).await?;
        name.ok_or(EditError::NotFound("user"))
    }

    async fn limit(&mut self, query: &'static str, of: i64, most: i64) -> Result<(), EditError> {
        if self.count(query, of).await? >= most {
            return Err(EditError::Limit("Maximum number of tokens have been reached."));
        }
        Ok(())
    }

    /// Refuses a login that somebody else has. A project may have several tokens of one login, so that a new one can replace an
    /// old one while both are in use.
    async fn free_login(&mut self, project: ProjectId, login: &str) -> Result<(), EditError> {
        if !is_user_name(login) {
            let [one, other] = JOB_LOGINS;
            return Err(EditError::Invalid(format!(
                "a login has 1 to 63 of a-z, 0-9, . _ and -, begins with a letter or digit and is not {one} or {other}"
            )));
        }
        let user = self.number("SELECT id FROM users WHERE name = $1", login).await?;
        let row = sqlx::query("SELECT id FROM tokens WHERE login = $1 AND project_id <> $2 LIMIT 1")
            .bind(login)
            .bind(project)
            .fetch_optional(self.connection())
            .await?;
        if user.is_some() || row.is_some() {
            return Err(EditError::Taken(format!("Login {login}")));
        }
        Ok(())
    }

    fn note_token(&mut self, action: &str, subject: String, id: TokenId, kind: &TokenKind, name: &str) {
        let note = Note {
            subject,
            detail: format!("{id} {} {name}", kind.word()),
            project: kind.project(),
            rule: None,
        };
        self.note(&[Part::NewTokens], action, note);
    }
}

fn parts(new: &NewToken) -> (TokenKind, &str, Option<i64>) {
    match new {
        NewToken::Personal {
            user,
            name,
            read,
            write,
            api,
            expires,
        } => {
            let (user, read, write, api) = (*user, *read, *write, *api);
            (TokenKind::Personal { user, read, write, api }, name, *expires)
        }
        NewToken::Deploy {
            project,
            name,
            login,
            read,
            write,
            expires,
        } => {
            let kind = TokenKind::Deploy {
                project: *project,
                login: login.clone(),
                read: *read,
                write: *write,
            };
            (kind, name, *expires)
        }
        NewToken::Job { user, project, expires } => {
            let (user, project) = (*user, *project);
            (TokenKind::Job { user, project }, "", Some(*expires))
        }
    }
}

fn named(name: &str) -> Result<(), EditError> {
    if name.trim().is_empty() || name.chars().nth(NAME_MAX_CHARS).is_some() || name.contains(acts) {
        let rule = format!("a token's name has 1 to {NAME_MAX_CHARS} characters, and none that controls");
        return Err(EditError::Invalid(rule));
    }
    Ok(())
}

fn scoped(any: bool) -> Result<(), EditError> {
    if !any {
        return Err(EditError::Invalid("a token has at least one scope".to_owned()));
    }
    Ok(())
}
