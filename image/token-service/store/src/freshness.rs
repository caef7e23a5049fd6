//! One task that knows the latest snapshot, and asks the database before each answer whether there is a later one.
//!
//! Callers wait in a queue. The task takes all of them, asks once, and answers all; those who came while it asked are answered
//! from the next question. So nobody gets an answer that is older than the own question, and many callers cost one query.

use crate::database::{Database, within};
use crate::load::{load, version};
use crate::{Snapshot, StoreError};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most callers of one query, and as many again that wait for a place in the queue's memory.
const CALLERS_MAX: usize = 4096;

type Answer = Result<Arc<Snapshot>, StoreError>;

/// The way to the task. It ends with the last of these.
pub(crate) struct Freshness {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Freshness {
    /// Loads the first snapshot and starts the task on the current runtime.
    pub(crate) async fn start(database: Arc<Database>) -> Result<Self, StoreError> {
        let first = Arc::new(within(load(&database, None)).await?);
        let (queue, callers) = mpsc::channel(CALLERS_MAX);
        tokio::spawn(answer(database, first, callers));
        Ok(Self { queue })
    }

    /// The snapshot, not older than this call.
    pub(crate) async fn current(&self) -> Answer {
        let (caller, answer) = oneshot::channel();
        let stopped = |_| StoreError::unavailable("the store is closed");
        self.queue.send(caller).await.map_err(|_| stopped(()))?;
        answer.await.map_err(|_| stopped(()))?
    }
}

async fn answer(database: Arc<Database>, mut latest: Arc<Snapshot>, mut queue: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut callers = Vec::new();
    while queue.recv_many(&mut callers, CALLERS_MAX).await > 0 {
        let answer = within(refreshed(&database, &latest)).await;
        if let Ok(snapshot) = &answer {
            latest = Arc::clone(snapshot);
        }
        for caller in callers.drain(..) {
            // A caller that gave up waits for nothing.
            let _ = caller.send(answer.clone());
        }
    }
}

async fn refreshed(database: &Database, latest: &Arc<Snapshot>) -> Answer {
    if version(database).await? == latest.version() {
        return Ok(Arc::clone(latest));
    }
    Ok(Arc::new(load(database, Some(latest)).await?))
}
