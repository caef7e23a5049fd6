//! The page that asks again before something is removed.

use crate::Shell;
use askama::Template;

/// A question with one button for yes and one link for no.
#[derive(Debug, Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// The frame.
    pub shell: Shell,
    /// The heading, a question.
    pub question: &'static str,
    /// What it is about: a pattern, a name, a path.
    pub subject: String,
    /// What follows from it.
    pub consequence: &'static str,
    /// The path to which the form is sent.
    pub action: String,
    /// The word on the button.
    pub button: &'static str,
    /// Where "Cancel" goes.
    pub back: String,
}
