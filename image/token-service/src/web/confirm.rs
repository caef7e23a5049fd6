//! The question before something is removed.

use super::answer::page;
use super::visitor::Visitor;
use axum::http::StatusCode;
use axum::response::Response;
use registry_pages::{Confirm, Section};

/// What is asked, except for its subject.
pub(super) struct Question {
    pub(super) question: &'static str,
    pub(super) consequence: &'static str,
    pub(super) button: &'static str,
}

/// The page that sends its form to `action`.
pub(super) fn ask(visitor: &Visitor, section: Section, question: &Question, subject: &str, action: String, back: String) -> Response {
    let view = Confirm {
        shell: visitor.shell(section, None),
        question: question.question,
        subject: subject.to_owned(),
        consequence: question.consequence,
        action,
        button: question.button,
        back,
    };
    page(StatusCode::OK, &view)
}
