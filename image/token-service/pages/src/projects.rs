//! The list of projects, and the form for a new one.

use crate::field::{Fault, faults};
use crate::{Choice, Field, Shell, visibility_choices};
use askama::Template;
use registry_rules::{Role, Visibility};

/// The projects that a user may see.
#[derive(Debug, Template)]
#[template(path = "projects.html")]
pub struct ProjectsPage {
    /// The frame.
    pub shell: Shell,
    /// What is searched for: a part of the path.
    pub search: String,
    /// One page of what was found, by path.
    pub rows: Vec<ProjectRow>,
    /// How many there are on all pages.
    pub found: usize,
    /// The path of the page before this one.
    pub earlier: Option<String>,
    /// The path of the page after this one.
    pub later: Option<String>,
    /// Whether the user may create projects.
    pub may_create: bool,
}

/// A project in the list.
#[derive(Debug)]
pub struct ProjectRow {
    /// Its number.
    pub id: i64,
    /// Its path.
    pub path: String,
    /// Who may pull.
    pub visibility: Visibility,
    /// How many protection rules it has.
    pub rules: usize,
    /// The user's own role.
    pub role: Option<Role>,
}

/// The form for a new project.
#[derive(Debug, Template)]
#[template(path = "new_project.html")]
pub struct NewProject {
    /// The frame.
    pub shell: Shell,
    /// Its path.
    pub path: Field,
    /// Who may pull.
    pub visibility: Field,
}

impl NewProject {
    fn faults(&self) -> Vec<Fault<'_>> {
        faults(&[("path", &self.path), ("visibility", &self.visibility)])
    }

    fn visibilities(&self) -> [Choice; 2] {
        visibility_choices()
    }
}
