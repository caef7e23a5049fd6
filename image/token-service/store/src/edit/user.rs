//! Edits of users.

use super::{Edit, Note, Part};
use crate::{EditError, PasswordHash, Store, UserId, is_user_name};
use sqlx::Row;

/// Most users; each costs the service about 300 bytes of memory.
const USERS_MAX: i64 = 100_000;

impl Store {
    /// Adds a user, who logs in with tokens alone if there is no password.
    ///
    /// # Errors
    /// An invalid name, one that a user or a deploy token has, too many users.
    pub async fn create_user(
        &self,
        by: &str,
        name: &str,
        password: Option<&PasswordHash>,
        administrator: bool,
    ) -> Result<UserId, EditError> {
        self.edit(by, async |edit| edit.create_user(name, password, administrator).await)
            .await
    }

    /// Changes or takes away a user's password.
    ///
    /// # Errors
    /// No such user.
    pub async fn set_password(&self, by: &str, user: UserId, password: Option<&PasswordHash>) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.set_password(user, password).await).await
    }

    /// Blocks a user, who then may do nothing, or lets it in again.
    ///
    /// # Errors
    /// No such user.
    pub async fn set_blocked(&self, by: &str, user: UserId, blocked: bool) -> Result<(), EditError> {
        let query = "UPDATE users SET blocked = $1, changed = $2 WHERE id = $3 RETURNING name";
        let action = if blocked { "user.block" } else { "user.unblock" };
        self.edit(by, async |edit| edit.set_flag(query, action, user, blocked).await).await
    }

    /// Makes a user an administrator, or no longer one.
    ///
    /// # Errors
    /// No such user.
    pub async fn set_administrator(&self, by: &str, user: UserId, administrator: bool) -> Result<(), EditError> {
        let query = "UPDATE users SET administrator = $1, changed = $2 WHERE id = $3 RETURNING name";
        let action = if administrator { "user.promote" } else { "user.demote" };
        self.edit(by, async |edit| edit.set_flag(query, action, user, administrator).await)
            .await
    }

    /// Deletes a user with its memberships and tokens.
    ///
    /// # Errors
    /// No such user.
    pub async fn delete_user(&self, by: &str, user: UserId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.delete_user(user).await).await
    }
}

impl Edit {
    async fn create_user(&mut self, name: &str, password: Option<&PasswordHash>, administrator: bool) -> Result<UserId, EditError> {
        if !is_user_name(name) {
            let rule = "a user name has 1 to 63 of a-z, 0-9, . _ and -, begins with a letter or digit and is not reserved";
            return Err(EditError::Invalid(rule.to_owned()));
        }
        if self.count("SELECT COUNT(*) FROM users WHERE id > $1", 0).await? >= USERS_MAX {
            return Err(EditError::Limit("Maximum number of users have been reached."));
        }
        let taken = || EditError::Taken(format!("User name {name}"));
        if self.number("SELECT id FROM tokens WHERE login = $1 LIMIT 1", name).await?.is_some() {
            return Err(taken());
        }
        let query = "INSERT INTO users (name, password, administrator, blocked, changed) VALUES ($1, $2, $3, 0, $4)
            ON CONFLICT DO NOTHING RETURNING id";
        let row = sqlx::query(query)
            .bind(name)
            .bind(password.map(PasswordHash::as_phc))
            .bind(i64::from(administrator))
            .bind(self.version)
            .fetch_optional(self.connection())
            .await?;
        let id = row.ok_or_else(taken)?.try_get(0)?;
        let detail = if administrator { "administrator" } else { "" };
        self.note_user("user.create", name.to_owned(), detail);
        Ok(id)
    }

    async fn set_password(&mut self, user: UserId, password: Option<&PasswordHash>) -> Result<(), EditError> {
        let row = sqlx::query("UPDATE users SET password = $1, changed = $2 WHERE id = $3 RETURNING name")
            .bind(password.map(PasswordHash::as_phc))
            .bind(self.version)
            .bind(user)
            .fetch_optional(self.connection())
            .await?;
        let name = row.ok_or(EditError::NotFound("user"))?.try_get(0)?;
        let detail = if password.is_some() { "" } else { "taken away" };
        self.note_user("user.password", name, detail);
        Ok(())
    }

    async fn set_flag(&mut self, query: &'static str, action: &str, user: UserId, flag: bool) -> Result<(), EditError> {
        let row = sqlx::query(query)
            .bind(i64::from(flag))
            .bind(self.version)
            .bind(user)
            .fetch_optional(self.connection())
            .await?;
        let name = row.ok_or(EditError::NotFound("user"))?.try_get(0)?;
        self.note_user(action, name, "");
        Ok(())
    }

    async fn delete_user(&mut self, user: UserId) -> Result<(), EditError> {
        let name = self.text("DELETE FROM users WHERE id = $1 RETURNING name", user).await?;
        let subject = name.ok_or(EditError::NotFound("user"))?;
        let note = Note {
            subject,
            ..Note::default()
        };
        self.note(&[Part::Users, Part::Members, Part::Tokens], "user.delete", note);
        Ok(())
    }

    fn note_user(&mut self, action: &str, subject: String, detail: &str) {
        let note = Note {
            subject,
            detail: detail.to_owned(),
            ..Note::default()
        };
        self.note(&[Part::NewUsers], action, note);
    }
}
