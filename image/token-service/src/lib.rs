//! The registry token service: the scopes that clients request.
#![forbid(unsafe_code)]

mod scope;

pub use scope::{Action, Scope, ScopeError};
