//! "What if": a user, a repository and an action, and the decision with each step to it.

use crate::field::{Fault, faults};
use crate::{Choice, Field, Shell};
use askama::Template;

/// The question, and the answer where it was asked.
#[derive(Debug, Template)]
#[template(path = "what_if.html")]
pub struct WhatIf {
    /// The frame.
    pub shell: Shell,
    /// The user's name; nobody signed in where empty.
    pub user: Field,
    /// The repository.
    pub repository: Field,
    /// `pull`, `push`, `delete` or `*`.
    pub action: Field,
    /// The decision.
    pub verdict: Option<Verdict>,
}

/// A decision and how it came about.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the action is granted.
    pub granted: bool,
    /// The decision in a sentence.
    pub headline: String,
    /// What a client shows, where the whole request is refused.
    pub message: Option<String>,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
}

/// A step of a decision.
#[derive(Debug)]
pub struct Step {
    /// What is looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// Whether the request got past it.
    pub passed: bool,
    /// The path of the rule that decided, and its pattern.
    pub rule: Option<(String, String)>,
}

impl WhatIf {
    fn actions(&self) -> [Choice; 4] {
        [
            Choice {
                value: "pull",
                label: "Pull",
            },
            Choice {
                value: "push",
                label: "Push",
            },
            Choice {
                value: "delete",
                label: "Delete",
            },
            Choice {
                value: "*",
                label: "All of these (*)",
            },
        ]
    }

    fn faults(&self) -> Vec<Fault<'_>> {
        faults(&[("user", &self.user), ("repository", &self.repository), ("action", &self.action)])
    }
}
