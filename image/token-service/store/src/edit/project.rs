//! Edits of groups, projects and their members.

use super::{Edit, Note, Part};
use crate::{EditError, GroupId, Holder, Store, UserId};
use registry_rules::{ProjectId, ProjectPath, Role, Visibility};
use sqlx::Row;

/// Most groups.
const GROUPS_MAX: i64 = 20_000;
/// Most projects.
const PROJECTS_MAX: i64 = 20_000;
/// Most direct members of one group or project.
const MEMBERS_MAX: i64 = 10_000;

impl Store {
    /// Adds a group, whose members have their role in every project below its path.
    ///
    /// # Errors
    /// A path that a group or project has, too many groups.
    pub async fn create_group(&self, by: &str, path: &ProjectPath) -> Result<GroupId, EditError> {
        self.edit(by, async |edit| edit.create_group(path).await).await
    }

    /// Deletes a group and its memberships; the projects below its path stay.
    ///
    /// # Errors
    /// No such group.
    pub async fn delete_group(&self, by: &str, group: GroupId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.delete_group(group).await).await
    }

    /// Adds a project.
    ///
    /// # Errors
    /// A path that a group or project has, too many projects.
    pub async fn create_project(&self, by: &str, path: &ProjectPath, visibility: Visibility) -> Result<ProjectId, EditError> {
        self.edit(by, async |edit| edit.create_project(path, visibility).await).await
    }

    /// Changes who may pull from a project without being a member.
    ///
    /// # Errors
    /// No such project.
    pub async fn set_visibility(&self, by: &str, project: ProjectId, visibility: Visibility) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.set_visibility(project, visibility).await).await
    }

    /// Deletes a project with its memberships, rules and tokens. Its repositories stay in the registry.
    ///
    /// # Errors
    /// No such project.
    pub async fn delete_project(&self, by: &str, project: ProjectId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.delete_project(project).await).await
    }

    /// Makes a user a member, changes its role, or ends the membership where there is no role.
    ///
    /// # Errors
    /// No such project, group or user, no membership to end, too many members.
    pub async fn set_member(&self, by: &str, of: Holder, user: UserId, role: Option<Role>) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.set_member(of, user, role).await).await
    }
}

impl Edit {
    pub(super) async fn create_group(&mut self, path: &ProjectPath) -> Result<GroupId, EditError> {
        if self.count("SELECT COUNT(*) FROM groups WHERE id > $1", 0).await? >= GROUPS_MAX {
            return Err(EditError::Limit("Maximum number of groups have been reached."));
        }
        self.refuse_taken(path, "SELECT id FROM projects WHERE path = $1").await?;
        let query = "INSERT INTO groups (path) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id";
        let row = sqlx::query(query).bind(path.as_str()).fetch_optional(self.connection()).await?;
        let id = row.ok_or_else(|| taken(path))?.try_get(0)?;
        self.note_path(&[Part::Groups], "group.create", path.as_str(), None, String::new());
        Ok(id)
    }

    pub(super) async fn delete_group(&mut self, group: GroupId) -> Result<(), EditError> {
        let path = self.text("DELETE FROM groups WHERE id = $1 RETURNING path", group).await?;
        let path = path.ok_or(EditError::NotFound("group"))?;
        self.note_path(&[Part::Groups, Part::Members], "group.delete", &path, None, String::new());
        Ok(())
    }

    pub(super) async fn create_project(&mut self, path: &ProjectPath, visibility: Visibility) -> Result<ProjectId, EditError> {
        if self.count("SELECT COUNT(*) FROM projects WHERE id > $1", 0).await? >= PROJECTS_MAX {
            return Err(EditError::Limit("Maximum number of projects have been reached."));
        }
        self.refuse_taken(path, "SELECT id FROM groups WHERE path = $1").await?;
        let query = "INSERT INTO projects (path, visibility) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id";
        let row = sqlx::query(query)
            .bind(path.as_str())
            .bind(word(visibility))
            .fetch_optional(self.connection())
            .await?;
        let id = row.ok_or_else(|| taken(path))?.try_get(0)?;
        self.note_path(
            &[Part::Projects],
            "project.create",
            path.as_str(),
            Some(id),
            word(visibility).to_owned(),
        );
        Ok(id)
    }

    pub(super) async fn set_visibility(&mut self, project: ProjectId, visibility: Visibility) -> Result<(), EditError> {
        let path = self.project_path(project).await?;
        sqlx::query("UPDATE projects SET visibility = $1 WHERE id = $2")
            .bind(word(visibility))
            .bind(project)
            .execute(self.connection())
            .await?;
        let detail = word(visibility).to_owned();
        self.note_path(&[Part::Projects], "project.visibility", &path, Some(project), detail);
        Ok(())
    }

    pub(super) async fn delete_project(&mut self, project: ProjectId) -> Result<(), EditError> {
        let path = self.text("DELETE FROM projects WHERE id = $1 RETURNING path", project).await?;
        let path = path.ok_or(EditError::NotFound("project"))?;
        let parts = [Part::Projects, Part::Members, Part::Tokens];
        self.note_path(&parts, "project.delete", &path, Some(project), String::new());
        Ok(())
    }

    pub(super) async fn set_member(&mut self, of: Holder, user: UserId, role: Option<Role>) -> Result<(), EditError> {
        let (path, holder, project) = match of {
            Holder::Project(id) => (self.project_path(id).await?, id, Some(id)),
            Holder::Group(id) => {
                let path = self.text("SELECT path FROM groups WHERE id = $1", id).await?;
                (path.ok_or(EditError::NotFound("group"))?, id, None)
            }
        };
        let name = self.text("SELECT name FROM users WHERE id = $1", user).await?;
        let name = name.ok_or(EditError::NotFound("user"))?;
        let (count, set, remove) = match of {
            Holder::Project(_) => (
                "SELECT COUNT(*) FROM project_members WHERE project_id = $1",
                "INSERT INTO project_members (project_id, user_id, role) VALUES ($1, $2, $3)
                    ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role",
                "DELETE FROM project_members WHERE project_id = $1 AND user_id = $2",
            ),
            Holder::Group(_) => (
                "SELECT COUNT(*) FROM group_members WHERE group_id = $1",
                "INSERT INTO group_members (group_id, user_id, role) VALUES ($1, $2, $3)
                    ON CONFLICT (group_id, user_id) DO UPDATE SET role = excluded.role",
                "DELETE FROM group_members WHERE group_id = $1 AND user_id = $2",
            ),
        };
        let query = sqlx::query(if role.is_some() { set } else { remove }).bind(holder).bind(user);
        let query = match role {
            Some(role) => query.bind(role.word()),
            None => query,
        };
        if query.execute(self.connection()).await?.rows_affected() == 0 {
            return Err(EditError::NotFound("member"));
        }
        if self.count(count, holder).await? > MEMBERS_MAX {
            return Err(EditError::Limit("Maximum number of members have been reached."));
        }
        let (action, detail) = match role {
            Some(role) => ("member.set", format!("{name} {role}")),
            None => ("member.remove", name),
        };
        self.note_path(&[Part::Members], action, &path, project, detail);
        Ok(())
    }

    async fn refuse_taken(&mut self, path: &ProjectPath, query: &'static str) -> Result<(), EditError> {
        match self.number(query, path.as_str()).await? {
            Some(_) => Err(taken(path)),
            None => Ok(()),
        }
    }

    fn note_path(&mut self, parts: &[Part], action: &str, path: &str, project: Option<ProjectId>, detail: String) {
        let note = Note {
            subject: path.to_owned(),
            detail,
            project,
            rule: None,
        };
        self.note(parts, action, note);
    }
}

fn taken(path: &ProjectPath) -> EditError {
    EditError::Taken(format!("Path {path}"))
}

fn word(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    }
}
