//! The store: one handle for everything that needs the database.

use crate::audit::AuditRecord;
use crate::database::{Database, within};
use crate::freshness::Freshness;
use crate::recorder::Recorder;
use crate::{AuditEntry, AuditFilter, Snapshot, StoreError};
use std::fmt;
use std::sync::Arc;

/// Users, projects, rules, tokens and the audit trail. Clones share one set of connections.
#[derive(Clone)]
pub struct Store {
    parts: Arc<Parts>,
}

struct Parts {
    database: Arc<Database>,
    freshness: Freshness,
    recorder: Recorder,
}

impl Store {
    /// Opens a database, and brings its schema up to date: `sqlite:PATH`, whose file is made with mode 0600 if it is absent, or
    /// `postgres://…` as libpq reads it. Several processes may have one database open.
    ///
    /// # Errors
    /// A URL of neither kind, a file that cannot be made, a server that does not answer, a schema of a later version.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(url).await?);
        let freshness = Freshness::start(Arc::clone(&database)).await?;
        let recorder = Recorder::start(Arc::clone(&database));
        let parts = Parts {
            database,
            freshness,
            recorder,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Closes all connections; whoever uses the store afterwards is told that it is closed.
    pub async fn close(&self) {
        self.parts.database.close().await;
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn health(&self) -> Result<(), StoreError> {
        self.current().await.map(drop)
    }

    /// The state of the database, not older than this call: what any process has committed before is in it.
    ///
    /// # Errors
    /// The database does not answer, or has something in it that this program does not write.
    pub async fn current(&self) -> Result<Arc<Snapshot>, StoreError> {
        self.parts.freshness.current().await
    }

    /// Adds an entry to the audit trail, and returns when it is committed. Entries of many callers share a transaction.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn record(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.parts.recorder.record(entry).await
    }

    /// Entries of the audit trail that fit, the newest first.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
        within(self.parts.recorder.find(filter)).await
    }

    /// Adds the entries of one request, and returns when all are committed.
    ///
    /// # Errors
    /// The database does not take them; some may be there.
    pub async fn record_all(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        self.parts.recorder.record_all(entries).await
    }

    /// Deletes entries of the audit trail from before a time in milliseconds since 1970, and all but about the `most` last ones, and
    /// says how many.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn prune_audit(&self, before: i64, most: u32) -> Result<u64, StoreError> {
        self.parts.recorder.prune(before, most).await
    }

    pub(crate) fn database(&self) -> &Database {
        &self.parts.database
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("kind", &self.database().kind).finish_non_exhaustive()
    }
}
