//! A built VM: it runs until something ends it, then every thread is joined.

use crate::{
    event_loop::{EventLoop, EventSet, Token},
    exit_reason::{ExitEvent, ExitReason},
    kvm::KvmVm,
    memory::Memory,
    seccomp::{Filter, FilterError},
    vcpu::{ThreadError, VcpuThreads},
};
use std::{io, os::fd::AsRawFd, rc::Rc, sync::Arc};

/// Why a VM cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// epoll failed.
    #[error("the event loop failed")]
    Events(#[source] io::Error),
    /// The kernel refused the system call filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A vCPU thread is stuck.
    #[error(transparent)]
    Threads(#[from] ThreadError),
}

/// Everything that has to live as long as the guest does.
pub struct Vm {
    events: EventLoop,
    vcpus: Rc<VcpuThreads>,
    exit_event: Arc<ExitEvent>,
    filter: Filter,
    /// KVM forgets the guest's memory before the memory goes.
    _kvm: KvmVm,
    _memory: Memory,
}

impl Vm {
    /// Puts the parts together; the vCPUs are paused. `filter` is for the thread that will run the VM.
    pub fn new(events: EventLoop, vcpus: Rc<VcpuThreads>, exit_event: Arc<ExitEvent>, filter: Filter, kvm: KvmVm, memory: Memory) -> Self {
        Self {
            events,
            vcpus,
            exit_event,
            filter,
            _kvm: kvm,
            _memory: memory,
        }
    }

    /// Runs the guest until the VM exits.
    pub fn run(mut self) -> Result<ExitReason, RunError> {
        let stop = |events: &mut EventLoop, _: Token, _: EventSet| events.stop();
        self.events
            .add(self.exit_event.eventfd().as_raw_fd(), EventSet::IN, Box::new(stop))
            .map_err(RunError::Events)?;
        // vCPU threads have been under theirs since they were started.
        self.filter.install()?;
        self.vcpus.resume();
        let served = self.events.run();
        self.vcpus.stop()?;
        served.map_err(RunError::Events)?;
        Ok(self.exit_event.reason().cloned().unwrap_or(ExitReason::Stopped))
    }
}
