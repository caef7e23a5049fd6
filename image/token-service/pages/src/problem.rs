//! The page that says why there is no other.

use crate::Shell;
use askama::Template;

/// An error page.
#[derive(Debug, Template)]
#[template(path = "problem.html")]
pub struct Problem {
    /// The frame.
    pub shell: Shell,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, as a heading.
    pub title: &'static str,
    /// What to do about it.
    pub advice: String,
}
