//! The schema, and how a database of an earlier version gets it.

use crate::StoreError;
use crate::kind::Kind;
use sqlx::{AnyConnection, Connection, Executor, Row};

/// Each step from one schema to the next, in order; never changed after a release. `IDENTITY` stands for the database's own way
/// of numbering rows without giving a number twice.
const STEPS: [&str; 1] = [include_str!("migration/001_first.sql")];

/// The number of an advisory lock on PostgreSQL, so that only one process migrates; any number that nothing else uses.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7239471170385)";

/// Brings the schema up to date in one transaction, or refuses one that is ahead.
pub(crate) async fn migrate(connection: &mut AnyConnection, kind: Kind) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with(kind.begin_edit()).await?;
    if kind == Kind::Postgres {
        transaction.execute(LOCK).await?;
    }
    transaction
        .execute("CREATE TABLE IF NOT EXISTS schema_step (step BIGINT NOT NULL)")
        .await?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: Option<i64> = sqlx::query("SELECT MAX(step) FROM schema_step")
        .fetch_one(&mut *transaction)
        .await?
        .try_get(0)?;
    let found = found.unwrap_or(0);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (step, number) in STEPS.iter().zip(1_i64..).filter(|(_, number)| *number > found) {
        let ddl = step.replace("IDENTITY", kind.identity());
        transaction.execute(&*ddl).await?;
        sqlx::query("INSERT INTO schema_step (step) VALUES ($1)")
            .bind(number)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}
