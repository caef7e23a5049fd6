//! What can go wrong with the database, and with an edit.

use registry_rules::{RuleFault, TagRuleFault};
use sqlx::error::DatabaseError;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the database did not answer. Cloned to everybody who waited for the same query.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used now: disk full, locked by somebody else, file gone, server gone, no connection in time. Callers may retry.
    #[error("the database is unavailable: {reason}")]
    Unavailable {
        /// What about it.
        reason: &'static str,
        /// What the driver says, where it was asked.
        #[source]
        source: Option<Arc<sqlx::Error>>,
    },
    /// Its content is not what this version writes.
    #[error("the database is corrupt: {what}")]
    Corrupt {
        /// Where the fault is.
        what: String,
        /// What the driver says, where it noticed.
        #[source]
        source: Option<Arc<sqlx::Error>>,
    },
    /// A later version of this program has used it.
    #[error("the database has schema {found}, this program knows {known}")]
    NewerSchema {
        /// The database's.
        found: i64,
        /// The latest of this program.
        known: i64,
    },
    /// The URL is none of a database.
    #[error("the database's URL is {reason}")]
    Url {
        /// What is wrong with it; never the URL, which may contain a password.
        reason: &'static str,
        /// What the driver says.
        #[source]
        source: Option<Arc<sqlx::Error>>,
    },
    /// The database's file cannot be made or looked at.
    #[error("cannot open {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
}

/// Why an edit was not made. Nothing of it is in the database then.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EditError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What should be edited does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The name or path belongs to something else.
    #[error("{0} has already been taken")]
    Taken(String),
    /// The protection rule is invalid.
    #[error("{}", sentences(.0))]
    Rule(Vec<RuleFault>),
    /// The tag rule is invalid.
    #[error("{}", sentences(.0))]
    TagRule(Vec<TagRuleFault>),
    /// There are as many as there may be.
    #[error("{0}")]
    Limit(&'static str),
    /// Any other invalid field.
    #[error("{0}")]
    Invalid(String),
}

fn sentences<T: ToString>(faults: &[T]) -> String {
    faults.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl StoreError {
    pub(crate) fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, source: None }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            source: None,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let reason = match &error {
            sqlx::Error::Database(database) => database_reason(&**database),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Some("the connection failed"),
            sqlx::Error::PoolTimedOut => Some("no connection became free in time"),
            sqlx::Error::PoolClosed => Some("the store is closed"),
            sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => Some("the driver failed"),
            _ => None,
        };
        let source = Some(Arc::new(error));
        match reason {
            Some(reason) => Self::Unavailable { reason, source },
            None => Self::Corrupt {
                what: "a query failed that always works".to_owned(),
                source,
            },
        }
    }
}

impl From<sqlx::Error> for EditError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why a database refuses for the moment; none where its content or a query is at fault.
fn database_reason(error: &(dyn DatabaseError + 'static)) -> Option<&'static str> {
    let code = error.code().unwrap_or_default();
    // PostgreSQL's codes have five characters (its manual, appendix A), SQLite's are numbers whose low byte is the kind.
    if code.len() == 5 {
        return match (&code[..2], &code[2..]) {
            ("08", _) => Some("the connection failed"),
            ("25", _) => Some("the server accepts no changes"),
            ("28" | "3D", _) | ("42", "501") => Some("the server refuses access"),
            ("40", _) => Some("another transaction was in the way"),
            ("53", _) => Some("the server has no space, memory or connections left"),
            ("55", _) => Some("locked by somebody else"),
            ("57", _) => Some("the server stopped the query"),
            ("58", _) => Some("the server's system failed"),
            _ => None,
        };
    }
    match code.parse::<u32>().unwrap_or_default() & 0xff {
        3 | 23 => Some("access to the file is refused"),
        5 | 6 | 15 => Some("locked by somebody else"),
        7 => Some("no memory"),
        8 => Some("the file cannot be written"),
        10 => Some("reading or writing the file failed"),
        13 => Some("the disk is full"),
        14 => Some("the file cannot be opened"),
        _ => None,
    }
}
