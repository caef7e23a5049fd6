//! What happens when the guest exits to the VMM: the loop of one vCPU thread, and the counters of its exits.

use super::gate::Gate;
use super::threads::Surroundings;
use crate::devices::{MmioBus, PioBus};
use crate::ending::Ending;
use crate::kvm;
use crate::watchdog::{ExitMeter, THROTTLE, Verdict};
use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Instant;

/// Both address spaces of devices, shared by all vCPUs.
#[derive(Default)]
pub struct Buses {
    /// Memory-mapped devices.
    pub mmio: MmioBus,
    /// Port devices.
    pub pio: PioBus,
}

/// Exits that reached the VMM, over all vCPUs.
#[derive(Debug, Default)]
pub struct ExitCounters {
    io: AtomicU64,
    mmio: AtomicU64,
    interrupted: AtomicU64,
    other: AtomicU64,
}

impl ExitCounters {
    /// By the names of [`vm_spec::control::Stats::to_vmm`].
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let all = [
            ("io", &self.io),
            ("mmio", &self.mmio),
            ("interrupted", &self.interrupted),
            ("other", &self.other),
        ];
        all.map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed))).into()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs the guest on this thread until the gate ends.
pub fn serve(vcpu: &mut VcpuFd, gate: &Gate, around: &Surroundings, counters: &ExitCounters) {
    let Surroundings {
        buses, latch, watchdog, ..
    } = around;
    let mut meter = ExitMeter::new(Instant::now());
    while let Some(pass) = gate.enter() {
        // Tells the guest's watchdogs that time stood still; KVM refuses before the guest has set kvmclock up.
        let _ = vcpu.kvmclock_ctrl();
        while pass.is_valid() {
            let mut ending = turn(vcpu, buses, counters);
            match meter.exit(watchdog, Instant::now) {
                Verdict::Go => {}
                Verdict::Wait => sleep(THROTTLE),
                Verdict::End => ending = ending.or(Some(Ending::Storm)),
            }
            if let Some(ending) = ending {
                latch.end(ending);
                // The main thread joins us; until then this vCPU has nothing left to run.
                break;
            }
        }
        if latch.ending().is_some() {
            return;
        }
    }
}

/// Enters the guest once and serves its exit.
fn turn(vcpu: &mut VcpuFd, buses: &Buses, counters: &ExitCounters) -> Option<Ending> {
    match vcpu.run() {
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
        // EINTR: a kick; the gate decides. EAGAIN: a vCPU's first start by INIT and SIPI, to be entered again.
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
            ending(&other).or_else(|| Some(Ending::Unrunnable(kvm::internal_error(vcpu))))
        }
    }
}

/// What a rare exit means; `None` for an internal error of KVM, which only the vCPU can explain.
fn ending(exit: &Result<VcpuExit<'_>, vmm_sys_util::errno::Error>) -> Option<Ending> {
    Some(match exit {
        Ok(VcpuExit::Shutdown) => Ending::TripleFault,
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => Ending::PowerOff,
        Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Ending::Reset,
        Ok(VcpuExit::InternalError) => return None,
        Ok(exit) => Ending::Unrunnable(format!("an exit that this VM cannot have, {exit:?}")),
        Err(errno) => Ending::Unrunnable(format!("KVM_RUN: {errno}")),
    })
}
