//! The page with the sign-in form.

use crate::{Field, Shell};
use askama::Template;

/// Name and password.
#[derive(Debug, Template)]
#[template(path = "sign_in.html")]
pub struct SignIn {
    /// The frame.
    pub shell: Shell,
    /// The user's name. The password is never kept.
    pub name: Field,
    /// Where to go afterwards: a path of this site.
    pub next: String,
    /// Why it failed, in a sentence.
    pub refused: Option<&'static str>,
}
