//! Seccomp filters: the system calls that each thread may make once the guest may run.
//!
//! There is one table for the main thread and one for vCPU threads. A call that the table does not allow kills the process
//! with SIGSYS (`SECCOMP_RET_KILL_PROCESS`), so no signal handler and no code of an attacker runs after it. The kernel logs
//! the call (audit record type 1326). `tests/seccomp.rs` runs complete VMs under both tables, and again with each rule removed,
//! so that no rule is missing and none is unnecessary.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::{collections::BTreeMap, sync::Arc};
use vmm_sys_util::signal::SIGRTMIN;

/// `_IO(KVMIO, 0x80)`: enters the guest.
const KVM_RUN: u64 = 0xae80;
/// `_IO(KVMIO, 0xad)`: marks the guest as paused.
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
/// `_IOR(KVMIO, 0x81, struct kvm_regs)`: the instruction address for the message of an internal error.
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// Why a filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table is invalid.
    #[error("cannot compile a system call filter")]
    Compile(#[source] seccompiler::BackendError),
    /// `seccomp(2)` failed.
    #[error("cannot install a system call filter; the kernel needs CONFIG_SECCOMP_FILTER")]
    Install(#[source] seccompiler::Error),
}

/// A compiled filter; clones share it.
#[derive(Clone, Debug)]
pub struct Filter(Arc<BpfProgram>);

/// The filters of both kinds of threads.
#[derive(Clone, Debug)]
pub struct Filters {
    /// The main thread: event loop, devices' queues, control socket.
    pub main: Filter,
    /// Each vCPU thread.
    pub vcpu: Filter,
}

/// One allowed system call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    number: libc::c_long,
    only: &'static [Condition],
    /// When it is needed, if that depends on the host or on timing so that the test cannot trigger it.
    pub untested: Option<&'static str>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
struct Condition {
    argument: u8,
    is: Is,
}

#[derive(Clone, Copy, Debug)]
enum Is {
    /// This 32-bit value.
    Equal(u64),
    /// None of these bits.
    Without(u64),
    /// This process's id.
    OwnProcess,
    /// The signal that kicks a vCPU out of the guest.
    Kick,
}

const fn rule(name: &'static str, number: libc::c_long) -> Rule {
    Rule {
        name,
        number,
        only: &[],
        untested: None,
    }
}

impl Rule {
    const fn only(mut self, only: &'static [Condition]) -> Self {
        self.only = only;
        self
    }

    const fn untested(mut self, why: &'static str) -> Self {
        self.untested = Some(why);
        self
    }
}

const fn equal(argument: u8, value: u64) -> Condition {
    Condition {
        argument,
        is: Is::Equal(value),
    }
}

const fn ioctl(name: &'static str, request: &'static [Condition]) -> Rule {
    rule(name, libc::SYS_ioctl).only(request)
}

const NOT_EXECUTABLE: &[Condition] = &[Condition {
    argument: 2,
    is: Is::Without(libc::PROT_EXEC as u64),
}];
const ALLOCATOR: &str = "depends on how full the allocator's heap is";
const CLOCK: &str = "needed on hosts whose clock source has no vDSO";
const PANIC: &str = "needed for the message of a panic, which names the thread";
const STOPPED: &str = "needed after SIGSTOP or a cgroup freeze during a call with a timeout";

/// The main thread's calls.
pub const MAIN: &[Rule] = &[
    // the event loop
    rule("epoll_wait", libc::SYS_epoll_wait),
    rule("epoll_ctl", libc::SYS_epoll_ctl),
    rule("read", libc::SYS_read),
    rule("write", libc::SYS_write),
    rule("close", libc::SYS_close),
    rule("timerfd_settime", libc::SYS_timerfd_settime),
    // control and vsock sockets
    rule("accept4", libc::SYS_accept4).only(&[equal(3, (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64)]),
    rule("recvmsg", libc::SYS_recvmsg),
    rule("recvfrom", libc::SYS_recvfrom),
    rule("sendto", libc::SYS_sendto),
    rule("shutdown", libc::SYS_shutdown),
    // disks and entropy
    rule("preadv", libc::SYS_preadv),
    rule("pwritev", libc::SYS_pwritev),
    rule("fallocate", libc::SYS_fallocate),
    rule("statx", libc::SYS_statx).only(&[equal(2, libc::AT_EMPTY_PATH as u64)]),
    rule("getrandom", libc::SYS_getrandom),
    // KVM's counters
    rule("pread64", libc::SYS_pread64),
    // vCPU threads
    rule("futex", libc::SYS_futex),
    rule("tgkill", libc::SYS_tgkill).only(&[
        Condition {
            argument: 0,
            is: Is::OwnProcess,
        },
        Condition { argument: 2, is: Is::Kick },
    ]),
    // pthread_kill of the C library
    rule("getpid", libc::SYS_getpid),
    rule("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    // memory
    rule("munmap", libc::SYS_munmap),
    rule("mmap", libc::SYS_mmap).only(NOT_EXECUTABLE).untested(ALLOCATOR),
    rule("mremap", libc::SYS_mremap).untested(ALLOCATOR),
    rule("madvise", libc::SYS_madvise).untested(ALLOCATOR),
    rule("mprotect", libc::SYS_mprotect).only(NOT_EXECUTABLE).untested(ALLOCATOR),
    rule("brk", libc::SYS_brk).untested(ALLOCATOR),
    // time
    rule("clock_gettime", libc::SYS_clock_gettime).untested(CLOCK),
    rule("restart_syscall", libc::SYS_restart_syscall).untested(STOPPED),
    // exit
    rule("gettid", libc::SYS_gettid).untested(PANIC),
    rule("sigaltstack", libc::SYS_sigaltstack),
    rule("exit_group", libc::SYS_exit_group),
];

/// A vCPU thread's calls: entering the guest, and accesses to device registers. A driver that resets the vsock device closes
/// its streams on this thread.
pub const VCPU: &[Rule] = &[
    // the guest
    ioctl("ioctl KVM_RUN", &[equal(1, KVM_RUN)]),
    ioctl("ioctl KVM_KVMCLOCK_CTRL", &[equal(1, KVM_KVMCLOCK_CTRL)]),
    ioctl("ioctl KVM_GET_REGS", &[equal(1, KVM_GET_REGS)]),
    rule("rt_sigreturn", libc::SYS_rt_sigreturn),
    // registers of devices
    rule("write", libc::SYS_write),
    rule("fcntl", libc::SYS_fcntl).only(&[equal(1, libc::F_DUPFD_CLOEXEC as u64)]),
    rule("close", libc::SYS_close),
    rule("recvfrom", libc::SYS_recvfrom),
    rule("shutdown", libc::SYS_shutdown),
    // other threads
    rule("futex", libc::SYS_futex),
    rule("clock_nanosleep", libc::SYS_clock_nanosleep),
    // memory
    rule("mmap", libc::SYS_mmap).only(NOT_EXECUTABLE).untested(ALLOCATOR),
    rule("mprotect", libc::SYS_mprotect).only(NOT_EXECUTABLE).untested(ALLOCATOR),
    rule("mremap", libc::SYS_mremap).untested(ALLOCATOR),
    rule("brk", libc::SYS_brk).untested(ALLOCATOR),
    rule("madvise", libc::SYS_madvise),
    rule("munmap", libc::SYS_munmap),
    // time
    rule("clock_gettime", libc::SYS_clock_gettime).untested(CLOCK),
    rule("restart_syscall", libc::SYS_restart_syscall).untested(STOPPED),
    // exit
    rule("gettid", libc::SYS_gettid).untested(PANIC),
    rule("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    rule("sigaltstack", libc::SYS_sigaltstack),
    rule("exit", libc::SYS_exit),
];

impl Filters {
    /// Both tables, compiled.
    pub fn new() -> Result<Self, FilterError> {
        Ok(Self {
            main: Filter::allowing(MAIN)?,
            vcpu: Filter::allowing(VCPU)?,
        })
    }
}

impl Filter {
    /// Allows the system calls in `rules`; any other kills the process.
    pub fn allowing<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<Self, FilterError> {
        let mut by_number = BTreeMap::<i64, Vec<SeccompRule>>::new();
        for rule in rules {
            let alternatives = by_number.entry(rule.number).or_default();
            if !rule.only.is_empty() {
                alternatives.push(rule.compile().map_err(FilterError::Compile)?);
            }
        }
        SeccompFilter::new(by_number, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)
            .and_then(BpfProgram::try_from)
            .map(|program| Self(Arc::new(program)))
            .map_err(FilterError::Compile)
    }

    /// Installs the filter for the calling thread; it cannot be removed.
    pub fn install(&self) -> Result<(), FilterError> {
        apply_filter(&self.0).map_err(FilterError::Install)
    }
}

impl Rule {
    fn compile(&self) -> Result<SeccompRule, seccompiler::BackendError> {
        let conditions = self.only.iter().map(|condition| {
            let (length, operator, value) = match condition.is {
                Is::Equal(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
                Is::Without(bits) => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), 0),
                Is::OwnProcess => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, std::process::id().into()),
                Is::Kick => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, SIGRTMIN() as u64),
            };
            SeccompCondition::new(condition.argument, length, operator, value)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule without conditions would make a rule with conditions for the same call pointless.
    #[test]
    fn no_rule_overrides_another() {
        for table in [MAIN, VCPU] {
            for (i, rule) in table.iter().enumerate() {
                let same = table[..i].iter().filter(|r| r.number == rule.number).collect::<Vec<_>>();
                assert!(
                    same.is_empty() || (!rule.only.is_empty() && same.iter().all(|r| !r.only.is_empty())),
                    "{}",
                    rule.name
                );
            }
        }
        assert!(Filters::new().is_ok());
    }
}
