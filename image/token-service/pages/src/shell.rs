//! What every page has around its content.

/// The frame of a page.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// Who looks at it; nobody on the sign-in page and on errors before it.
    pub user: Option<SignedIn>,
    /// The part of the site that the page belongs to.
    pub section: Section,
    /// What has just been done, in a sentence.
    pub notice: Option<&'static str>,
}

/// The user who looks at a page.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The name.
    pub name: String,
    /// An administrator of the service.
    pub administrator: bool,
    /// May read the audit trail of at least one project.
    pub audits: bool,
    /// The word that each form returns, so that no other site can send one.
    pub form_key: String,
}

/// A part of the site, marked in the navigation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Section {
    /// None of the others.
    #[default]
    Other,
    /// Projects with their rules.
    Projects,
    /// "What if".
    WhatIf,
    /// The audit trail.
    Audit,
    /// The user's own tokens.
    Tokens,
}

impl Shell {
    /// The word for forms; empty where nobody is signed in.
    pub fn form_key(&self) -> &str {
        self.user.as_ref().map_or("", |user| &user.form_key)
    }

    /// The value of `aria-current` for a link in the navigation.
    pub(crate) fn current(&self, section: Section) -> &'static str {
        if self.section == section { "page" } else { "false" }
    }
}
