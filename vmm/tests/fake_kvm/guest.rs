//! What the guest does: one step of its script at each `KVM_RUN` of the first vCPU, after what the VMM answered to the last.

use super::{
    SEV, failed, lock, record,
    vm::{Kernel, hex},
};
use kvm_bindings::{KVM_EXIT_HYPERCALL, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SEV_TERM, kvm_run};
use std::{
    ffi::c_int,
    sync::{Mutex, atomic::Ordering},
};

/// `KVM_EXIT_SNP_REQ_CERTS` of Linux 6.20.
const REQ_CERTS: u32 = 43;
/// What is written to both views of a page before the guest asks for a conversion.
const MARK: u8 = 0x5a;

/// Offset of the first certificate in the tests' table.
const CERTIFICATE: usize = 48;

/// One exit.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Number and arguments of a hypercall.
    Hypercall([u64; 4]),
    /// An access that does not match the attributes: flags and address.
    Fault(u64, u64),
    /// An access that never succeeds.
    FaultForEver(u64, u64),
    /// A request for certificates: address and pages of a buffer.
    Certificates(u64, u64),
    /// Reads a register of a device.
    Read(u64),
    /// Writes one.
    Write(u64, u32),
    /// The GHCB MSR of a termination request.
    Terminate(u64),
}

/// `KVM_RUN`.
pub fn run(kernel: &'static Mutex<Kernel>, fd: c_int) -> c_int {
    let mut kernel = lock(kernel);
    let Some(vcpu) = kernel.vcpus.get(&fd) else {
        return failed(libc::EBADF);
    };
    let (id, run) = (vcpu.id, vcpu.run);
    if id > 0 {
        drop(kernel);
        // Waits for a kick, as a vCPU does that nobody has started.
        let wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        // SAFETY: no remainder is asked for.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &wait, std::ptr::null_mut()) };
        return failed(libc::EINTR);
    }
    // SAFETY: this thread alone uses the vCPU's page while it is in this function.
    let run = unsafe { &mut *run };
    let (steps, at) = (kernel.behaviour.steps.clone(), kernel.step);
    if let Some(last) = at.checked_sub(1) {
        answered(&kernel, steps[last], run);
    }
    // A guest's requests go through the descriptor that the launch began with (`sev_issue_cmd` of Linux arch/x86/kvm/svm/sev.c).
    if SEV.load(Ordering::Relaxed) < 0 {
        return failed(libc::EBADF);
    }
    let step = *steps.get(at).unwrap_or(&Step::Terminate(0x100));
    if !matches!(step, Step::FaultForEver(..)) {
        kernel.step += 1;
    }
    exit(&kernel, step, run)
}

/// The page that a step is about.
fn page(step: Step) -> Option<u64> {
    match step {
        Step::Hypercall([12, gpa, ..]) | Step::Fault(_, gpa) => Some(gpa),
        _ => None,
    }
}

/// Records the VMM's answer.
fn answered(kernel: &Kernel, step: Step, run: &kvm_run) {
    // SAFETY: the exit's member of the union.
    let answer = unsafe {
        match step {
            Step::Hypercall(_) => format!("returns {}", run.__bindgen_anon_1.hypercall.ret.cast_signed()),
            Step::Certificates(gpa, _) => {
                let request: *const [u64; 3] = (&raw const run.__bindgen_anon_1).cast();
                let [_, pages, ret] = *request;
                let seen = kernel
                    .slot(gpa)
                    .map(|(slot, at)| std::slice::from_raw_parts(slot.shared.add(at + CERTIFICATE), 4));
                format!("returns {ret}, {pages} pages: {}", hex(seen.unwrap_or_default()))
            }
            Step::Read(_) => format!("reads {}", hex(&run.__bindgen_anon_1.mmio.data[..4])),
            _ => String::new(),
        }
    };
    let views = page(step).and_then(|gpa| kernel.slot(gpa)).and_then(|(slot, at)| {
        // SAFETY: both views have the page.
        slot.private
            .map(|private| unsafe { format!("shared {:02x}, private {:02x}", *slot.shared.add(at), *private.add(at)) })
    });
    record(&format!("{step:x?} {answer} {}", views.unwrap_or_default()).replace("  ", " "));
}

fn exit(kernel: &Kernel, step: Step, run: &mut kvm_run) -> c_int {
    if let Some((slot, at)) = page(step).and_then(|gpa| kernel.slot(gpa)) {
        // SAFETY: both views have the page; nothing else uses it in these tests.
        unsafe {
            *slot.shared.add(at) = MARK;
            if let Some(private) = slot.private {
                *private.add(at) = MARK;
            }
        }
    }
    match step {
        Step::Hypercall([nr, a, b, c]) => {
            run.exit_reason = KVM_EXIT_HYPERCALL;
            run.__bindgen_anon_1.hypercall.nr = nr;
            run.__bindgen_anon_1.hypercall.args = [a, b, c, 0, 0, 0];
            run.__bindgen_anon_1.hypercall.ret = 99;
        }
        Step::Fault(flags, gpa) | Step::FaultForEver(flags, gpa) => {
            run.exit_reason = KVM_EXIT_MEMORY_FAULT;
            run.__bindgen_anon_1.memory_fault.flags = flags;
            run.__bindgen_anon_1.memory_fault.gpa = gpa;
            run.__bindgen_anon_1.memory_fault.size = 4096;
            return failed(libc::EFAULT);
        }
        Step::Certificates(gpa, pages) => {
            run.exit_reason = REQ_CERTS;
            let request: *mut [u64; 3] = (&raw mut run.__bindgen_anon_1).cast();
            // SAFETY: `struct kvm_exit_snp_req_certs` is a member of the union.
            unsafe { *request = [gpa, pages, 0] };
        }
        Step::Read(gpa) | Step::Write(gpa, _) => {
            run.exit_reason = KVM_EXIT_MMIO;
            run.__bindgen_anon_1.mmio.phys_addr = gpa;
            run.__bindgen_anon_1.mmio.len = 4;
            run.__bindgen_anon_1.mmio.is_write = 0;
            if let Step::Write(_, value) = step {
                run.__bindgen_anon_1.mmio.is_write = 1;
                run.__bindgen_anon_1.mmio.data = u64::from(value).to_le_bytes();
            }
        }
        Step::Terminate(msr) => {
            run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
            run.__bindgen_anon_1.system_event.type_ = KVM_SYSTEM_EVENT_SEV_TERM;
            run.__bindgen_anon_1.system_event.ndata = 1;
            // SAFETY: all members of the union are integers.
            unsafe { run.__bindgen_anon_1.system_event.__bindgen_anon_1.data[0] = msr };
        }
    }
    0
}
