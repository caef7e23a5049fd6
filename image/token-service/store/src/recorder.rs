//! Writes the audit trail in groups: one task takes what waits, writes it in one transaction, and tells everybody who waited.

use crate::audit::{AuditRecord, LIMIT_MAX};
use crate::database::{Database, within};
use crate::{AuditEntry, AuditFilter, AuditOutcome, StoreError};
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::{AnyConnection, Arguments, Encode, Row, Type};
use std::sync::{Arc, LazyLock};
use tokio::sync::{mpsc, oneshot};

/// Most entries of one transaction.
const GROUP_MAX: usize = 512;
/// Most entries that wait for one; further callers wait for a place.
const QUEUE_MAX: usize = 4096;
/// Rows of one statement. A group is written in the fewest statements of these, so that there are few to prepare.
const CHUNKS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];
/// Most entries that one transaction deletes, so that others get their turn.
const PRUNE_MAX: i64 = 10_000;

const COLUMNS: &str = "at, actor, address, action, subject, outcome, detail, project_id, rule_id";

type Waiting = (AuditEntry, oneshot::Sender<Result<(), StoreError>>);

/// The way to the task, which ends with it.
pub(crate) struct Recorder {
    database: Arc<Database>,
    queue: mpsc::Sender<Waiting>,
}

/// A query that grows, with numbered places for its values: the driver's own builder writes `?`, which PostgreSQL does not know.
struct Conditions {
    sql: String,
    values: AnyArguments<'static>,
}

impl Conditions {
    fn add(&mut self, word: &str, comparison: &str, value: impl Encode<'static, Any> + Type<Any> + 'static) -> Result<(), StoreError> {
        self.values.add(value).map_err(sqlx::Error::Encode)?;
        self.sql += &format!("{word}{comparison} ${}", self.values.len());
        Ok(())
    }
}

impl Recorder {
    /// Starts the task on the current runtime.
    pub(crate) fn start(database: Arc<Database>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_groups(Arc::clone(&database), entries));
        Self { database, queue }
    }

    pub(crate) async fn record(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.record_all(vec![entry]).await
    }

    /// Several entries of one request, which wait together.
    pub(crate) async fn record_all(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        let mut waiting = Vec::with_capacity(entries.len());
        let stopped = |_| StoreError::unavailable("the store is closed");
        for entry in entries {
            let (done, written) = oneshot::channel();
            self.queue.send((entry.cleaned(), done)).await.map_err(|_| stopped(()))?;
            waiting.push(written);
        }
        for written in waiting {
            written.await.map_err(|_| stopped(()))??;
        }
        Ok(())
    }

    pub(crate) async fn find(&self, filter: &AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
        let mut conditions = Conditions {
            sql: format!("SELECT id, {COLUMNS} FROM audit WHERE 1 = 1"),
            values: AnyArguments::default(),
        };
        let texts = [
            ("actor =", filter.actor.as_deref()),
            ("action =", filter.action.as_deref()),
            ("outcome =", filter.outcome.map(AuditOutcome::word)),
        ];
        for (comparison, text) in texts {
            if let Some(text) = text {
                conditions.add(" AND ", comparison, text.to_owned())?;
            }
        }
        let numbers = [
            ("project_id =", filter.project),
            ("at >=", filter.since),
            ("at <", filter.until),
            ("id <", filter.before),
        ];
        for (comparison, number) in numbers {
            if let Some(number) = number {
                conditions.add(" AND ", comparison, number)?;
            }
        }
        // PostgreSQL takes no NUL, and no entry has one.
        if [&filter.actor, &filter.action, &filter.subject]
            .into_iter()
            .flatten()
            .any(|text| text.contains('\0'))
        {
            return Ok(Vec::new());
        }
        if let Some(prefix) = filter.subject.as_deref().filter(|prefix| !prefix.is_empty()) {
            // Not LIKE, which means another thing in each database.
            let comparison = format!("substr(subject, 1, {}) =", prefix.chars().count());
            conditions.add(" AND ", &comparison, prefix.to_owned())?;
        }
        let limit = if filter.limit == 0 {
            LIMIT_MAX
        } else {
            filter.limit.min(LIMIT_MAX)
        };
        conditions.add(" ORDER BY id DESC ", "LIMIT", i64::from(limit))?;
        let Conditions { sql, values } = conditions;
        let query = sqlx::query_with(&sql, values).persistent(false);
        let rows = query.fetch_all(self.database.readers()?).await?;
        rows.iter().map(read).collect()
    }

    pub(crate) async fn prune(&self, before: i64, most: u32) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let now = within(self.prune_some(before, most)).await?;
            deleted += now;
            if now < PRUNE_MAX.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }

    async fn prune_some(&self, before: i64, most: u32) -> Result<u64, StoreError> {
        let mut transaction = self.database.begin_edit().await?;
        // Numbers are given in order, so that what is this far behind the last one is past the limit.
        let last: Option<i64> = sqlx::query("SELECT MAX(id) FROM audit")
            .fetch_one(&mut *transaction)
            .await?
            .try_get(0)?;
        let kept_from = last.unwrap_or(0) - i64::from(most);
        let result = sqlx::query("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 OR id <= $2 LIMIT $3)")
            .bind(before)
            .bind(kept_from)
            .bind(PRUNE_MAX)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(result.rows_affected())
    }
}

async fn write_groups(database: Arc<Database>, mut queue: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, GROUP_MAX).await > 0 {
        let (entries, callers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let written = within(write_group(&database, &entries)).await;
        for caller in callers {
            // A caller that gave up waits for nothing.
            let _ = caller.send(written.clone());
        }
    }
}

async fn write_group(database: &Database, entries: &[AuditEntry]) -> Result<(), StoreError> {
    let mut transaction = database.begin_edit().await?;
    write(&mut transaction, entries).await?;
    Ok(transaction.commit().await?)
}

/// Writes entries, which are clean, inside of a transaction.
pub(crate) async fn write(connection: &mut AnyConnection, mut entries: &[AuditEntry]) -> Result<(), StoreError> {
    for (size, statement) in CHUNKS.into_iter().zip(STATEMENTS.iter()) {
        while let Some((chunk, rest)) = entries.split_at_checked(size) {
            let mut query = sqlx::query(statement);
            for entry in chunk {
                query = query.bind(entry.at).bind(&*entry.actor).bind(&*entry.address).bind(&*entry.action);
                query = query.bind(&*entry.subject).bind(entry.outcome.word()).bind(&*entry.detail);
                query = query.bind(entry.project).bind(entry.rule);
            }
            query.execute(&mut *connection).await?;
            entries = rest;
        }
    }
    Ok(())
}

/// An INSERT for each of [`CHUNKS`].
static STATEMENTS: LazyLock<[String; 7]> = LazyLock::new(|| {
    CHUNKS.map(|size| {
        let row = |n: usize| {
            let values: Vec<String> = (1..=9).map(|column| format!("${}", n * 9 + column)).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = (0..size).map(row).collect();
        format!("INSERT INTO audit ({COLUMNS}) VALUES {}", rows.join(", "))
    })
});

fn read(row: &AnyRow) -> Result<AuditRecord, StoreError> {
    let outcome: &str = row.try_get(6)?;
    let entry = AuditEntry {
        at: row.try_get(1)?,
        actor: row.try_get(2)?,
        address: row.try_get(3)?,
        action: row.try_get(4)?,
        subject: row.try_get(5)?,
        outcome: outcome.parse().map_err(|_| StoreError::corrupt("an audit entry's outcome"))?,
        detail: row.try_get(7)?,
        project: row.try_get(8)?,
        rule: row.try_get(9)?,
    };
    Ok(AuditRecord {
        id: row.try_get(0)?,
        entry,
    })
}
