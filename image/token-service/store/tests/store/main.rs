//! The store on each of its databases: every story runs on SQLite and on a PostgreSQL server.
#![allow(missing_docs, reason = "names say what the parts of a test are")]

mod audit;
mod documents;
mod edits;
mod fresh;
mod kills;
mod postgres_faults;
mod schema;
mod sqlite_faults;
mod tokens;

use postgres_testing::Postgres;
use registry_rules::{ProjectId, Visibility};
use registry_store::{EditError, RuleFields, Store, StoreError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tempfile::TempDir;

/// An empty database. It ends with the value.
pub struct Database {
    pub url: String,
    /// SQLite's directory.
    pub directory: Option<TempDir>,
    server: Option<Arc<Postgres>>,
}

impl Database {
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}", directory.path().join("a registry?.db").display()),
            directory: Some(directory),
            server: None,
        }
    }

    pub fn postgres() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server();
        Self {
            url: server.database(&format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed))),
            directory: None,
            server: Some(server),
        }
    }

    pub async fn open(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }

    /// Does something that the store never does.
    pub async fn execute(&self, statement: &str) {
        match &self.server {
            Some(server) => drop(server.execute(self.url.rsplit('/').next().unwrap(), statement)),
            None => {
                let mut connection = sqlite_connection(&self.url).await;
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            }
        }
    }
}

/// One server for the tests that run at the same time; it ends with the last of them.
fn server() -> Arc<Postgres> {
    static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut weak = SERVER.lock().unwrap();
    weak.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Postgres::start());
        *weak = Arc::downgrade(&server);
        server
    })
}

/// A connection of somebody else to SQLite's file.
pub async fn sqlite_connection(url: &str) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions;
    let path = url.strip_prefix("sqlite:").unwrap();
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

pub fn fields(pattern: &str, push: &str, delete: &str) -> RuleFields {
    let level = |word: &str| Some(word.to_owned()).filter(|word| !word.is_empty());
    RuleFields {
        pattern: pattern.to_owned(),
        push: level(push),
        delete: level(delete),
    }
}

pub async fn project(store: &Store, path: &str) -> ProjectId {
    store
        .create_project("test", &path.parse().unwrap(), Visibility::Private)
        .await
        .unwrap()
}

/// That the database is said to be unavailable, for a reason with these words.
#[track_caller]
pub fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, impl Into<EditError>>, words: &str) {
    match result.map_err(Into::into) {
        Err(EditError::Store(StoreError::Unavailable { reason, .. })) => assert!(reason.contains(words), "{reason:?}"),
        other => panic!("{other:?} is not: unavailable, {words}"),
    }
}

/// Makes a test on each database of every story.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(&crate::Database::sqlite()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(&crate::Database::postgres()).await;
            })+
        }
    };
}
use stories;
