//! The loop of one vCPU thread: enters the guest, serves its exits, counts them.

use super::{faults::Faults, termination};
use crate::{
    certificates::Certificates,
    conversions::{self, Conversions},
    devices::Buses,
    exit_reason::{ExitEvent, ExitReason},
    kvm,
    pause::PauseControl,
    seccomp::Filter,
    watchdog::{ExitMeter, THROTTLE, Watchdog},
};
use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SEV_TERM, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::Instant,
};

/// What all vCPU threads share.
pub struct VcpuContext {
    /// Devices.
    pub buses: Buses,
    /// Memory that the guest can make private or shared; absent if its host can read all of it.
    pub conversions: Option<Conversions>,
    /// For the reports of an SNP guest.
    pub certificates: Option<Certificates>,
    /// Ends the VM.
    pub exit_event: Arc<ExitEvent>,
    /// Detects exit storms.
    pub watchdog: Arc<Watchdog>,
    /// System calls that a vCPU thread may make.
    pub filter: Filter,
}

/// Exits that reached the VMM, over all vCPUs.
#[derive(Debug, Default)]
pub struct ExitCounters {
    io: AtomicU64,
    mmio: AtomicU64,
    hypercall: AtomicU64,
    memory_fault: AtomicU64,
    certificates: AtomicU64,
    interrupted: AtomicU64,
    other: AtomicU64,
}

impl ExitCounters {
    /// By the names of [`vm_spec::control::Stats::to_vmm`].
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let all = [
            ("io", &self.io),
            ("mmio", &self.mmio),
            ("hypercall", &self.hypercall),
            ("memory_fault", &self.memory_fault),
            ("certificates", &self.certificates),
            ("interrupted", &self.interrupted),
            ("other", &self.other),
        ];
        all.map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed))).into()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs the guest on this thread until the VM exits or `pause` stops it.
pub fn run(vcpu: &mut VcpuFd, pause: &PauseControl, context: &VcpuContext, counters: &ExitCounters) {
    let VcpuContext { exit_event, watchdog, .. } = context;
    let mut meter = ExitMeter::new(Instant::now());
    let mut faults = Faults::default();
    while let Some(guard) = pause.wait_until_running() {
        // Keeps the guest's soft-lockup watchdog quiet after a pause; KVM refuses before the guest has set kvmclock up.
        let _ = vcpu.kvmclock_ctrl();
        while guard.may_enter() {
            let reason = run_once(vcpu, context, counters, &mut faults);
            if meter.exit(watchdog, Instant::now) {
                sleep(THROTTLE);
            }
            if let Some(reason) = reason {
                exit_event.set(reason);
                // The main thread joins this one; until then this vCPU has nothing left to run.
                break;
            }
        }
        if exit_event.reason().is_some() {
            return;
        }
    }
}

/// Enters the guest once and serves its exit.
fn run_once(vcpu: &mut VcpuFd, context: &VcpuContext, counters: &ExitCounters, faults: &mut Faults) -> Option<ExitReason> {
    let buses = &context.buses;
    let exit = vcpu.run();
    if !matches!(exit, Ok(VcpuExit::MemoryFault { .. })) {
        faults.clear();
    }
    match exit {
        Ok(VcpuExit::IoOut(port, data)) => {
            count(&counters.io);
            buses.pio.write(port.into(), data);
            None
        }
        Ok(VcpuExit::IoIn(port, data)) => {
            count(&counters.io);
            buses.pio.read(port.into(), data);
            None
        }
        Ok(VcpuExit::MmioWrite(address, data)) => {
            count(&counters.mmio);
            buses.mmio.write(address, data);
            None
        }
        Ok(VcpuExit::MmioRead(address, data)) => {
            count(&counters.mmio);
            buses.mmio.read(address, data);
            None
        }
        Ok(VcpuExit::Hypercall(call)) => {
            count(&counters.hypercall);
            *call.ret = conversions::hypercall(context.conversions.as_ref(), call.nr, call.args);
            None
        }
        Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
            count(&counters.memory_fault);
            faults.serve(context.conversions.as_ref(), flags, gpa, size)
        }
        Ok(VcpuExit::Unsupported(kvm::EXIT_SNP_REQ_CERTS)) if context.certificates.is_some() => {
            count(&counters.certificates);
            if let Some(certificates) = &context.certificates {
                let request = kvm::certificate_request(vcpu);
                let reply = certificates.serve(request.gpa, request.npages);
                request.npages = reply.pages;
                request.ret = u64::from(reply.errno.unsigned_abs());
            }
            None
        }
        // EINTR: a kick, so the caller checks for a pause. EAGAIN: INIT and SIPI started this vCPU, which must be entered again.
        Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
            count(&counters.interrupted);
            None
        }
        Ok(VcpuExit::Intr) => {
            count(&counters.interrupted);
            None
        }
        other => {
            count(&counters.other);
            exit_reason(&other).or_else(|| Some(ExitReason::KvmFailed(kvm::internal_error(vcpu))))
        }
    }
}

/// What a rare exit means; `None` for an internal error of KVM, whose details need the vCPU.
fn exit_reason(exit: &Result<VcpuExit<'_>, vmm_sys_util::errno::Error>) -> Option<ExitReason> {
    Some(match exit {
        Ok(VcpuExit::Shutdown) => ExitReason::TripleFault,
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => ExitReason::PowerOff,
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => ExitReason::Reset,
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SEV_TERM, data)) => termination::reason(data.first().copied().unwrap_or_default()),
        Ok(VcpuExit::InternalError) => return None,
        Ok(exit) => ExitReason::KvmFailed(format!("unexpected exit {exit:?}")),
        Err(errno) => ExitReason::KvmFailed(format!("KVM_RUN: {errno}")),
    })
}
