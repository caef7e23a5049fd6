//! When a shim ends: one rule, asked after everything that may have made it true.
//!
//! It ends when it was asked to (`Shutdown`) or its own bundle is gone, and no container is left whose exit anybody could
//! still ask for: one that is announced or being created, one that runs, or a stopped one whose bundle is there, so that containerd will
//! delete it. containerd 1.x asks a group's shim to end after each deletion in the group, and removes bundles without any
//! call to the shim where it gives up on a start or has lost a task.

use super::{Tasks, container::Container, process::ProcessState};
use std::{path::Path, sync::atomic::Ordering, time::Duration};

/// How often a shim without a container looks at its bundle: containerd has given up on it where that is gone.
const EMPTY_POLL: Duration = Duration::from_millis(500);
/// How often a shim with containers does.
const BUSY_POLL: Duration = Duration::from_secs(5);

impl Tasks {
    /// Ends the shim if the rule allows it. Nothing is created afterwards, and the next start of this sandbox finds no socket
    /// before this returns.
    pub(super) fn end_if_over(&self) -> bool {
        let may_end = || self.ending.load(Ordering::SeqCst) || is_gone(&self.bundle);
        may_end() && self.door.end_if(&|| self.containers.close_if(is_over))
    }

    /// Ends the shim whatever it has.
    pub(super) fn end_now(&self) {
        self.containers.close();
        self.door.end();
    }

    /// Returns once the shim has ended by the rule.
    pub(super) async fn watch_end(&self) {
        while !self.end_if_over() {
            let pause = if self.containers.is_empty() { EMPTY_POLL } else { BUSY_POLL };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether nobody will ask for the container's exit any more.
fn is_over(container: &Container) -> bool {
    container.init.state() == ProcessState::Stopped && is_gone(Path::new(&container.bundle))
}

/// A bundle that cannot be looked at counts as there.
pub(super) fn is_gone(bundle: &Path) -> bool {
    !bundle.try_exists().unwrap_or(true)
}
