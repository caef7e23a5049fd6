//! A built VM: runs until the VM exits, then joins every thread.

use crate::{
    event_loop::{EventLoop, EventSet, Token},
    exit_reason::{ExitEvent, ExitReason},
    kvm::KvmVm,
    memory::Memory,
    seccomp::{Filter, FilterError},
    snp::Launched,
    threads::Threads,
    vcpu::ThreadError,
};
use std::{io, os::fd::AsRawFd, rc::Rc, sync::Arc};

/// Why running the VM failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// epoll failed.
    #[error("the event loop failed")]
    Events(#[source] io::Error),
    /// The kernel refused the system call filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A thread did not stop.
    #[error(transparent)]
    Threads(#[from] ThreadError),
}

/// Everything that has to live as long as the guest.
pub struct Vm {
    events: EventLoop,
    threads: Rc<Threads>,
    exit_event: Arc<ExitEvent>,
    filter: Filter,
    _kept: Kept,
}

/// What only has to exist, in the order in which it is dropped.
pub struct Kept {
    /// An SNP guest's requests go through it.
    pub _launched: Option<Launched>,
    /// Before the memory that it maps.
    pub _kvm: KvmVm,
    /// The guest's memory.
    pub _memory: Memory,
}

impl Vm {
    /// A VM whose threads are paused. `filter` is the seccomp filter of the thread that will call [`Vm::run`].
    pub fn new(events: EventLoop, threads: Rc<Threads>, exit_event: Arc<ExitEvent>, filter: Filter, kept: Kept) -> Self {
        Self {
            events,
            threads,
            exit_event,
            filter,
            _kept: kept,
        }
    }

    /// Runs the guest until the VM exits.
    pub fn run(mut self) -> Result<ExitReason, RunError> {
        let stop = |events: &mut EventLoop, _: Token, _: EventSet| events.stop();
        self.events
            .add(self.exit_event.eventfd().as_raw_fd(), EventSet::IN, Box::new(stop))
            .map_err(RunError::Events)?;
        // The other threads have installed theirs already.
        self.filter.install()?;
        self.threads.resume();
        let result = self.events.run();
        let stopped = self.threads.stop();
        result.map_err(RunError::Events)?;
        match (self.exit_event.reason(), stopped) {
            // A thread that does not stop in time hides no reason: the process ends, and every thread with it.
            (Some(reason), _) => Ok(reason.clone()),
            (None, stopped) => stopped.map(|()| ExitReason::Stopped).map_err(RunError::from),
        }
    }
}
