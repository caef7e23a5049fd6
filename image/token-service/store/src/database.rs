//! The connections to the database, SQLite's or PostgreSQL's, by the same means.

use crate::StoreError;
use crate::kind::Kind;
use crate::migration::migrate;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyTransactionManager};
use sqlx::{Any, AnyPool, ConnectOptions, Connection, Executor, Transaction, TransactionManager};
use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anybody waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long any operation takes at most, so that a server that says nothing stops nobody for ever.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a new file that is locked is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// Connections for those who read beside the judgement: pages of the audit trail.
const READERS: u32 = 2;
/// Connections for edits and the audit trail on PostgreSQL; SQLite has one writer at a time anyway.
const POSTGRES_WRITERS: u32 = 4;

/// Connections for three purposes that never wait for each other.
pub(crate) struct Database {
    pub(crate) kind: Kind,
    file: Option<DatabaseFile>,
    judge: AnyPool,
    readers: AnyPool,
    writers: AnyPool,
}

/// SQLite's file as it was when it was opened: its connections would go on in a file that was deleted, and nobody would see it.
struct DatabaseFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Database {
    /// Connects, and brings the schema up to date.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (kind, file, options) = if let Some(path) = url.strip_prefix("sqlite:") {
            let (file, options) = sqlite(path)?;
            (Kind::Sqlite, Some(file), options)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            (Kind::Postgres, None, parse(url)?)
        } else {
            return Err(StoreError::Url {
                reason: "neither sqlite:PATH nor postgres://…",
                source: None,
            });
        };
        let options = options.disable_statement_logging();
        let writers = if kind == Kind::Sqlite { 1 } else { POSTGRES_WRITERS };
        let database = Self {
            kind,
            file,
            judge: pool(kind, 1, &options),
            readers: pool(kind, READERS, &options),
            writers: pool(kind, writers, &options),
        };
        within(prepare(kind, &options)).await?;
        Ok(database)
    }

    /// Waits until every connection is closed.
    pub(crate) async fn close(&self) {
        self.judge.close().await;
        self.readers.close().await;
        self.writers.close().await;
    }

    /// The connection of the one task that judges.
    pub(crate) fn judge(&self) -> Result<&AnyPool, StoreError> {
        self.check_file()?;
        Ok(&self.judge)
    }

    /// Connections for other readers.
    pub(crate) fn readers(&self) -> Result<&AnyPool, StoreError> {
        self.check_file()?;
        Ok(&self.readers)
    }

    /// Begins a transaction that writes.
    pub(crate) async fn begin_edit(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.check_file()?;
        Ok(self.writers.begin_with(self.kind.begin_edit()).await?)
    }

    /// Begins the judge's transaction that sees one state.
    pub(crate) async fn begin_reading(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.judge.begin_with(self.kind.begin_reading()).await?)
    }

    fn check_file(&self) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        match std::fs::metadata(&file.path) {
            Ok(now) if identity(&now) == file.identity => Ok(()),
            Ok(_) => Err(StoreError::unavailable("another file is in its place; start again to use it")),
            Err(_) => Err(StoreError::unavailable("its file is gone")),
        }
    }
}

/// Waits for one operation, at most [`OPERATION_TIMEOUT`].
pub(crate) async fn within<T, E: From<StoreError>>(operation: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    within_time(OPERATION_TIMEOUT, operation).await
}

/// Waits for one operation, at most this long.
pub(crate) async fn within_time<T, E: From<StoreError>>(limit: Duration, operation: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::time::timeout(limit, operation)
        .await
        .unwrap_or_else(|_| Err(StoreError::unavailable("no answer in time").into()))
}

/// Makes the schema by a connection of its own, because a pool tries again what will never work.
async fn prepare(kind: Kind, options: &AnyConnectOptions) -> Result<(), StoreError> {
    let mut connection = options.connect().await?;
    // Of those who come to a new file of SQLite at the same time, all but one are told at once that it is locked.
    let deadline = Instant::now() + ACQUIRE_TIMEOUT;
    while let Err(error) = connection.execute(kind.setup()).await {
        let error = StoreError::from(error);
        let waits = kind == Kind::Sqlite && matches!(error, StoreError::Unavailable { .. });
        if !waits || Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
    migrate(&mut connection, kind).await?;
    Ok(connection.close().await?)
}

fn pool(kind: Kind, most: u32, options: &AnyConnectOptions) -> AnyPool {
    let setup = kind.setup();
    AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| Box::pin(async move { connection.execute(setup).await.map(drop) }))
        // SQLite ends a transaction by itself when the disk is full; the driver's own rollback then fails, and it still counts
        // the connection as inside of it. Such a connection is thrown away.
        .before_acquire(|connection, _| Box::pin(async move { Ok(AnyTransactionManager::get_transaction_depth(connection) == 0) }))
        .connect_lazy_with(options.clone())
}

fn parse(url: &str) -> Result<AnyConnectOptions, StoreError> {
    url.parse().map_err(|source| StoreError::Url {
        reason: "malformed",
        source: Some(Arc::new(source)),
    })
}

fn sqlite(path: &str) -> Result<(DatabaseFile, AnyConnectOptions), StoreError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Err(StoreError::Url {
            reason: "without a file",
            source: None,
        });
    }
    let cannot = |source| StoreError::File {
        path: path.into(),
        source: Arc::new(source),
    };
    let path = std::path::absolute(Path::new(path)).map_err(cannot)?;
    // Its log gets the same mode from SQLite.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(cannot(error));
    }
    let identity = identity(&std::fs::metadata(&path).map_err(cannot)?);
    let options = parse(&format!("sqlite:{}", escaped(&path)))?;
    Ok((DatabaseFile { path, identity }, options))
}

/// The path as part of a URL. It was text before.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
