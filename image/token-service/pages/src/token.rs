//! Tokens: the list of a user's own, the form for a new one, and the page that shows a secret once.

use crate::field::{Fault, faults};
use crate::{Field, Shell};
use askama::Template;
use std::fmt;

/// A token in a list. Its secret is not known any more.
#[derive(Debug)]
pub struct TokenRow {
    /// Its number.
    pub id: i64,
    /// What its owner calls it.
    pub name: String,
    /// The name to log in with.
    pub login: String,
    /// What it may do, in words.
    pub scopes: String,
    /// When it ends, as a date, or that it does not.
    pub expires: String,
    /// Whether it cannot be used any more.
    pub ended: bool,
}

/// The form for a token.
#[derive(Debug, Default)]
pub struct TokenForm {
    /// What it is called.
    pub name: Field,
    /// The name to log in with; deploy tokens alone.
    pub login: Field,
    /// May pull.
    pub read: bool,
    /// May push.
    pub write: bool,
    /// May use the REST interface; personal tokens alone.
    pub api: bool,
    /// What is wrong with the choice of these.
    pub scopes: Field,
    /// The last day, `2026-12-31`, or nothing.
    pub expires: Field,
}

impl TokenForm {
    pub(crate) fn faults(&self) -> Vec<Fault<'_>> {
        faults(&[
            ("token-name", &self.name),
            ("token-login", &self.login),
            ("token-scopes", &self.scopes),
            ("token-expires", &self.expires),
        ])
    }
}

/// A user's own tokens.
#[derive(Debug, Template)]
#[template(path = "tokens.html")]
pub struct TokensPage {
    /// The frame.
    pub shell: Shell,
    /// The tokens.
    pub tokens: Vec<TokenRow>,
    /// The form for one more.
    pub token_form: TokenForm,
}

impl TokensPage {
    fn faults(&self) -> Vec<Fault<'_>> {
        self.token_form.faults()
    }
}

/// A token that was just made; the one page that shows its secret.
#[derive(Template)]
#[template(path = "new_token.html")]
pub struct NewToken {
    /// The frame.
    pub shell: Shell,
    /// What it is called.
    pub name: String,
    /// The name to log in with.
    pub login: String,
    /// The secret.
    pub secret: String,
    /// Where to go on.
    pub back: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("name", &self.name).finish_non_exhaustive()
    }
}
