//! The vCPU threads as one thing: started behind a shut gate, opened, shut, ended, joined.

use super::exits::{Buses, ExitCounters, serve};
use super::gate::{Gate, Stuck};
use crate::ending::{EndLatch, Ending};
use crate::seccomp::Filter;
use crate::stats::VcpuStats;
use crate::watchdog::Watchdog;
use kvm_ioctls::VcpuFd;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use vm_spec::control::Stats;
use vmm_sys_util::errno;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Stack of a vCPU thread: the run loop and the devices' register code, nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// Why the threads could not be started, stopped or asked.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The kick signal has no handler.
    #[error("cannot install the handler of the signal that kicks vCPUs")]
    Signal(#[source] errno::Error),
    /// KVM has no statistics.
    #[error("KVM gives no statistics of a vCPU; Linux 5.14 and later do")]
    Stats(#[source] io::Error),
    /// No thread to be had.
    #[error("cannot start a vCPU thread; the process or its cgroup may be out of threads")]
    Spawn(#[source] io::Error),
    /// It did not leave the guest.
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

/// What every vCPU thread has around it.
pub struct Surroundings {
    /// Devices.
    pub buses: Buses,
    /// Ends the VM.
    pub latch: Arc<EndLatch>,
    /// Looks at exits.
    pub watchdog: Arc<Watchdog>,
    /// What the threads may ask of the kernel.
    pub filter: Filter,
}

/// All vCPU threads of the VM. They start paused.
pub struct VcpuThreads {
    gate: Arc<Gate>,
    counters: Arc<ExitCounters>,
    watchdog: Arc<Watchdog>,
    stats: Vec<VcpuStats>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

/// The kick only has to interrupt `KVM_RUN`.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl VcpuThreads {
    /// Starts a thread per vCPU, behind a shut gate; returns when each is under its filter.
    pub fn start(vcpus: Vec<VcpuFd>, around: Surroundings) -> Result<Self, ThreadError> {
        register_signal_handler(SIGRTMIN(), on_kick).map_err(ThreadError::Signal)?;
        let stats = vcpus
            .iter()
            .map(VcpuStats::open)
            .collect::<Result<_, _>>()
            .map_err(ThreadError::Stats)?;
        let around = Arc::new(around);
        let this = Self {
            gate: Arc::new(Gate::new()),
            counters: Arc::default(),
            watchdog: around.watchdog.clone(),
            stats,
            handles: Mutex::default(),
        };
        let count = vcpus.len();
        let settled = Arc::new((Mutex::new(0), Condvar::new()));
        for (id, mut vcpu) in vcpus.into_iter().enumerate() {
            let (gate, counters, around) = (this.gate.clone(), this.counters.clone(), around.clone());
            let settled = settled.clone();
            let run = move || {
                let _last_word = LastWord(&around.latch);
                let installed = around.filter.install();
                *settled.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                settled.1.notify_one();
                match installed {
                    Ok(()) => serve(&mut vcpu, &gate, &around, &counters),
                    Err(e) => around.latch.end(Ending::Faulty(e.to_string())),
                }
            };
            let handle = Builder::new().name(format!("vcpu{id}")).stack_size(STACK_BYTES).spawn(run);
            match handle {
                Ok(handle) => this.handles().push(handle),
                Err(e) => {
                    let _ = this.end();
                    return Err(ThreadError::Spawn(e));
                }
            }
        }
        // No guest runs before the last thread is under its filter: the first vCPU would, while the others still start.
        let behind = settled.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _all = settled
            .1
            .wait_while(behind, |threads| *threads < count)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(this)
    }

    /// Lets the guest run.
    pub fn resume(&self) {
        self.gate.open();
    }

    /// Returns when no vCPU is in the guest and none of its exits is being served. If one does not stop, all run on.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.gate.shut(|| self.kick()).inspect_err(|_| self.gate.open())?;
        Ok(())
    }

    /// Takes every vCPU out of the guest for good and joins the threads.
    pub fn end(&self) -> Result<(), ThreadError> {
        self.gate.end(|| self.kick())?;
        for handle in self.handles().drain(..) {
            // A thread that panicked has said so on stderr and ended the VM.
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
            // Fails only for a thread that is gone, which is what the kick is for.
            let _ = handle.kill(SIGRTMIN());
        }
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the VM if the thread panics: nobody would wait for its vCPU otherwise.
struct LastWord<'a>(&'a EndLatch);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Ending::Unrunnable("a vCPU thread of the VMM panicked".into()));
        }
    }
}
