//! What a story has at hand inside L1: containers by `ctr`, policies by `casemate`, VMs by hand, and the traces they leave.

mod container;
mod fifo;
pub mod growth;
mod listener;
mod policy;
mod process;
mod runtime;
pub mod scope;
mod tasks;
pub mod traces;
pub mod victim;
pub mod vm;
pub mod watch;

pub use container::{Container, Running, is_running};
pub use fifo::{Fifo, Reading};
pub use listener::{Event, Listener};
pub use policy::{IMAGES, Policy};
pub use process::{Ended, Program};
pub use runtime::Runtime;
pub use scope::{Dice, Scope, Set};
pub use tasks::{Answer, Events, Stdio, Tasks};
pub use traces::Traces;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// After its last container, everything of a sandbox is gone within this time (containerd gives a shim 5 s; emulation is slow).
const GONE_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// SHA-256 of a policy's text: the guest's host data.
pub fn digest(policy: &[u8]) -> [u8; 32] {
    Sha256::digest(policy).into()
}

/// What a story runs with: its runtime, its scope, and what was on the machine before.
pub struct Lab {
    runtime: Runtime,
    scope: Scope,
    before: Traces,
}

impl Lab {
    /// Records what is on the machine, to recognise afterwards what the story left.
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

    /// With another extent than the short set's.
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

    /// What was there at the beginning.
    pub fn before(&self) -> &Traces {
        &self.before
    }

    /// A container of `image`, not yet run.
    pub fn container(&self, image: &str) -> Container {
        Container::new(self.runtime, image)
    }

    /// No process, mount, socket, file or container is left that was not there at the beginning.
    pub fn nothing_is_left(&self) -> Result<()> {
        self.nothing_is_left_but(&self.before)
    }

    /// As [`Self::nothing_is_left`], for a story in which something goes on.
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

    /// Repeats `look` until it gives something; `what` names what was waited for in vain.
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
