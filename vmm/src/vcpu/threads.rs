//! All vCPU threads: start, pause, resume, stop, statistics.

use super::exits::{ExitCounters, VcpuContext, run};
use crate::{
    exit_reason::{ExitEvent, ExitReason},
    pause::{PauseControl, PauseTimeout},
    stats::VcpuStats,
    watchdog::Watchdog,
};
use kvm_ioctls::VcpuFd;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
};
use vm_spec::control::Stats;
use vmm_sys_util::{
    errno,
    signal::{Killable, SIGRTMIN, register_signal_handler},
};

/// Stack of a vCPU thread: the run loop and the devices' register code, nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// Why the threads could not be started, paused or read.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// `sigaction` failed.
    #[error("cannot install the handler of the signal that kicks vCPUs")]
    Signal(#[source] errno::Error),
    /// `KVM_GET_STATS_FD` failed.
    #[error("cannot read KVM's statistics of a vCPU; Linux 5.14 or later is needed")]
    Stats(#[source] io::Error),
    /// `clone` failed.
    #[error("cannot start a vCPU thread; the process or its cgroup may be out of threads")]
    Spawn(#[source] io::Error),
    /// A vCPU did not leave the guest.
    #[error(transparent)]
    Pause(#[from] PauseTimeout),
}

/// All vCPU threads of the VM.
pub struct VcpuThreads {
    pause: Arc<PauseControl>,
    counters: Arc<ExitCounters>,
    watchdog: Arc<Watchdog>,
    stats: Vec<VcpuStats>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

/// The kick only has to interrupt `KVM_RUN`.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl VcpuThreads {
    /// Starts a thread per vCPU, paused; returns when each has installed its seccomp filter.
    pub fn start(vcpus: Vec<VcpuFd>, context: VcpuContext) -> Result<Self, ThreadError> {
        register_signal_handler(SIGRTMIN(), on_kick).map_err(ThreadError::Signal)?;
        let stats = vcpus
            .iter()
            .map(VcpuStats::open)
            .collect::<Result<_, _>>()
            .map_err(ThreadError::Stats)?;
        let context = Arc::new(context);
        let this = Self {
            pause: Arc::new(PauseControl::new()),
            counters: Arc::default(),
            watchdog: context.watchdog.clone(),
            stats,
            handles: Mutex::default(),
        };
        let count = vcpus.len();
        let filtered = Arc::new((Mutex::new(0), Condvar::new()));
        for (id, mut vcpu) in vcpus.into_iter().enumerate() {
            let (pause, counters, context) = (this.pause.clone(), this.counters.clone(), context.clone());
            let filtered = filtered.clone();
            let body = move || {
                let _on_panic = ExitOnPanic(&context.exit_event);
                let installed = context.filter.install();
                *filtered.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                filtered.1.notify_one();
                match installed {
                    Ok(()) => run(&mut vcpu, &pause, &context, &counters),
                    Err(e) => context.exit_event.set(ExitReason::VmmFailed(e.to_string())),
                }
            };
            let handle = Builder::new().name(format!("vcpu{id}")).stack_size(STACK_BYTES).spawn(body);
            match handle {
                Ok(handle) => this.handles().push(handle),
                Err(e) => {
                    let _ = this.stop();
                    return Err(ThreadError::Spawn(e));
                }
            }
        }
        // No vCPU may run before every thread has its filter: the first would run while the others still start.
        let guard = filtered.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = filtered
            .1
            .wait_while(guard, |threads| *threads < count)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(this)
    }

    /// Lets the guest run.
    pub fn resume(&self) {
        self.pause.resume();
    }

    /// Returns when no vCPU is in the guest and none of its exits is being served. If one does not stop, all are resumed.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.pause.pause(|| self.kick()).inspect_err(|_| self.pause.resume())?;
        Ok(())
    }

    /// Takes every vCPU out of the guest for good and joins the threads.
    pub fn stop(&self) -> Result<(), ThreadError> {
        self.pause.stop(|| self.kick())?;
        for handle in self.handles().drain(..) {
            // A thread that panicked has written so to stderr and set the exit reason.
            let _ = handle.join();
        }
        Ok(())
    }

    /// Counters since the start.
    pub fn stats(&self) -> Result<Stats, ThreadError> {
        let mut kvm = BTreeMap::new();
        self.stats.iter().try_for_each(|s| s.add_to(&mut kvm)).map_err(ThreadError::Stats)?;
        Ok(Stats {
            exits: kvm.get("exits").copied().unwrap_or_default(),
            kvm,
            to_vmm: self.counters.by_name(),
            watchdog: self.watchdog.stats(),
        })
    }

    fn kick(&self) {
        for handle in self.handles().iter() {
            // Fails only for a thread that has exited and so needs no kick.
            let _ = handle.kill(SIGRTMIN());
        }
    }

    fn handles(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the VM if the thread panics: its vCPU would be missing otherwise.
struct ExitOnPanic<'a>(&'a ExitEvent);

impl Drop for ExitOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(ExitReason::KvmFailed("a vCPU thread of the VMM panicked".into()));
        }
    }
}
