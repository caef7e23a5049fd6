//! The token service's view of a request: which actions on which repository a client asks for.
#![forbid(unsafe_code)]

mod scope;

pub use scope::{Action, Scope, ScopeError};
