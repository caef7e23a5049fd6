//! What a run has made in containerd, and its removal on every path.

use crate::containerd::{Containerd, ContainerdError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;

/// How long a task may take to end after it was killed: a VM that boots is ended by its shim.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// After this time a signal ends what removes a container: it may never end by itself.
pub const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);
/// What ends a container.
const SIGKILL: u32 = 9;

/// What there may be to remove. Each is noted before it is made: a call that was given up may have been served.
pub struct Made {
    containerd: Containerd,
    snapshotter: String,
    id: String,
    /// Its name: a run's own, while a container's id may be the user's.
    lease: Option<String>,
    snapshot: bool,
    container: bool,
    task: bool,
}

impl Made {
    /// Nothing yet.
    pub fn new(containerd: Containerd, snapshotter: &str, id: &str) -> Self {
        Self {
            containerd,
            snapshotter: snapshotter.to_owned(),
            id: id.to_owned(),
            lease: None,
            snapshot: false,
            container: false,
            task: false,
        }
    }

    /// The lease of that name is being made.
    pub fn lease(&mut self, name: &str) {
        self.lease = Some(name.to_owned());
    }

    /// The container's snapshot is being made, or was not, since another one has its key.
    pub fn snapshot(&mut self, ours: bool) {
        self.snapshot = ours;
    }

    /// The container is being made, or was not, since another one has its id.
    pub fn container(&mut self, ours: bool) {
        self.container = ours;
    }

    /// The task is being made.
    pub fn task(&mut self) {
        self.task = true;
    }

    /// Removes everything, the last first; returns what could not be removed.
    pub async fn remove(self) -> Vec<ContainerdError> {
        let Self { containerd, id, .. } = &self;
        let mut failures = Vec::new();
        if self.task
            && let Err(error) = self.end_task().await
        {
            // Without it the rest cannot be removed either.
            return vec![error];
        }
        if self.container {
            failures.extend(containerd.delete_container(id).await.err());
        }
        if self.snapshot {
            failures.extend(containerd.remove_snapshot(&self.snapshotter, id).await.err());
        }
        if let Some(lease) = &self.lease {
            failures.extend(containerd.delete_lease(lease).await.err());
        }
        failures
    }

    /// Deletes the task; one that runs is killed first. A containerd that starts again is waited for.
    async fn end_task(&self) -> Result<(), ContainerdError> {
        let end = Instant::now() + ENDS_WITHIN;
        loop {
            let error = match timeout_at(end, self.containerd.delete_task(&self.id)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.code().is_none() => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(ContainerdError::Hangs(format!("delete the task of container {}", self.id))),
            };
            // A denial of the signal is what the user must know.
            let error = match self.containerd.kill_task(&self.id, SIGKILL).await {
                Err(denied) if denied.code() == Some(Code::PermissionDenied) => denied,
                _ => error,
            };
            if Instant::now() >= end {
                return Err(error);
            }
            sleep(POLL).await;
        }
    }
}
