//! Users, projects, rules, tokens and the audit trail of the token service, in SQLite or PostgreSQL.
//!
//! Reading and writing are apart. [`Store::current`] gives everything that a judgement needs as one consistent [`Snapshot`],
//! never older than the moment of the call; it costs one small query, which callers share, until somebody edits. Each edit is
//! one transaction: what it depends on is checked, it is made, the version goes up, and the audit trail says who did it.
#![forbid(unsafe_code)]

mod audit;
mod database;
pub mod document;
mod edit;
mod error;
mod freshness;
mod kind;
mod load;
mod migration;
mod recorder;
mod secret;
mod snapshot;
mod store;
mod token;
mod user;

pub use audit::{AuditEntry, AuditFilter, AuditOutcome, AuditRecord, UnknownOutcome};
pub use edit::{RuleChange, RuleFields};
pub use error::{EditError, StoreError};
pub use secret::{NewSecret, PasswordHash, PasswordHashError};
pub use snapshot::{Group, GroupId, Holder, Snapshot, UserRoles};
pub use store::Store;
pub use token::{NewToken, TokenDigest, TokenId, TokenKind, TokenRecord};
pub use user::{JOB_LOGINS, User, UserId, is_user_name};
