//! The web pages of the registry's token service as HTML, from structures of what they show: no input, no output, no decision.
//!
//! Every page is one structure here and one file in `templates/`, and [`Template::render`] makes the document. All text is escaped
//! on its way in; the pages have no script, and one style sheet ([`STYLE`]) that the service gives out at `/style.css`.
#![forbid(unsafe_code)]

mod audit;
mod confirm;
mod field;
mod problem;
mod project;
mod projects;
mod rule_form;
mod shell;
mod sign_in;
mod token;
mod what_if;

pub use askama::Template;
pub use audit::{Audit, AuditQuery, AuditRow};
pub use confirm::Confirm;
pub use field::{Choice, Field, level_choices, role_choices, visibility_choices};
pub use problem::Problem;
pub use project::{MemberForm, MemberRow, People, Person, ProjectPage, RuleRow, TagRuleRow};
pub use projects::{NewProject, ProjectRow, ProjectsPage};
pub use rule_form::{RuleForm, RuleKind};
pub use shell::{Section, Shell, SignedIn};
pub use sign_in::SignIn;
pub use token::{NewToken, TokenForm, TokenRow, TokensPage};
pub use what_if::{Step, Verdict, WhatIf};

/// The style sheet of every page.
pub const STYLE: &str = include_str!("../style.css");
