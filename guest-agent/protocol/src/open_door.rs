//! The text a shim sends when no policy was given, so that a verifier sees its well-known digest.

/// Allows every enforcement point. A test in crate `policy` holds it equal to that crate's own.
pub const OPEN_DOOR: &str = include_str!("open_door.rego");
