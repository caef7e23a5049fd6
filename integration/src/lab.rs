//! What stories use inside L1: containers by `ctr`, policies by `casemate`, VMs without containerd, and checks of what is left behind.

mod container;
pub mod cri;
mod fifo;
pub mod growth;
mod guest_image;
mod listener;
mod policy;
mod process;
pub mod registry;
mod runtime;
pub mod scope;
pub mod simulated;
mod tasks;
pub mod traces;
pub mod victim;
pub mod vm;
pub mod watch;

pub use container::{Container, Running, is_running};
pub use fifo::{Fifo, Reading};
pub use guest_image::{GUEST_IMAGE, GuestImage, NODE_CONFIG};
pub use listener::{Event, Listener};
pub use policy::{IMAGES, Policy};
pub use process::{Ended, Program};
pub use runtime::Runtime;
pub use scope::{Random, Scope, Set};
pub use tasks::{Answer, Events, Stdio, Tasks};
pub use traces::Traces;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// Within this time after its last container, everything of a sandbox is gone (containerd gives a shim 5 s; emulation is slow).
const GONE_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// SHA-256 of a policy's text: the guest's host data.
pub fn digest(policy: &[u8]) -> [u8; 32] {
    Sha256::digest(policy).into()
}

/// The context of a story: its runtime, its scope, and the state of the machine before it.
pub struct Lab {
    runtime: Runtime,
    scope: Scope,
    before: Traces,
}

impl Lab {
    /// Records the state of the machine, to find later what the story left behind.
    pub fn enter(runtime: Runtime) -> Result<Self> {
        Ok(Self {
            runtime,
            scope: Scope {
                set: Set::Short,
                part: 1,
                parts: 1,
                seed: 1,
            },
            before: Traces::now()?,
        })
    }

    /// The same with another scope.
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// How much of the story runs here.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The runtime under test.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// The state of the machine at the beginning.
    pub fn before(&self) -> &Traces {
        &self.before
    }

    /// A container of `image`, not yet run.
    pub fn container(&self, image: &str) -> Container {
        Container::new(self.runtime, image)
    }

    /// Checks that no process, mount, socket, file or container is left that did not exist at the beginning.
    pub fn nothing_is_left(&self) -> Result<()> {
        self.nothing_is_left_but(&self.before)
    }

    /// As [`Self::nothing_is_left`], for a story in which something keeps running.
    pub fn nothing_is_left_but(&self, known: &Traces) -> Result<()> {
        let end = Instant::now() + GONE_DEADLINE;
        loop {
            let left = Traces::now()?.without(known);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("left behind after {GONE_DEADLINE:?}:\n{left}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Calls `look` until it returns something; after `limit`, an error with `what`.
    pub fn until<T>(&self, what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            match look() {
                Some(found) => return Ok(found),
                None if Instant::now() > end => bail!("{what}: not within {limit:?}"),
                None => std::thread::sleep(POLL),
            }
        }
    }
}
