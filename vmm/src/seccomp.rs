//! System call filters: what a thread may ask of the host's kernel from the moment it may enter the guest.
//!
//! One table per kind of thread; there are two. A call that no rule of a thread's table allows kills the whole process
//! with SIGSYS (`SECCOMP_RET_KILL_PROCESS`): no code of an attacker runs after it, no handler either. The kernel names
//! the call in its log (audit record type 1326). `tests/seccomp.rs` runs every thread through what it does in the life
//! of a VM under its table, and again without each rule in turn, so no rule is missing and none is idle.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::{collections::BTreeMap, sync::Arc};
use vmm_sys_util::signal::SIGRTMIN;

/// `_IO(KVMIO, 0x80)`: enters the guest.
const KVM_RUN: u64 = 0xae80;
/// `_IO(KVMIO, 0xad)`: tells the guest that it was paused.
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
/// `_IOR(KVMIO, 0x81, struct kvm_regs)`: where a guest was that KVM cannot run any further.
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// Why a filter is not in place.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table cannot be expressed; a fault of the table.
    #[error("cannot compile a system call filter")]
    Compile(#[source] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel takes no system call filter; it needs CONFIG_SECCOMP_FILTER")]
    Install(#[source] seccompiler::Error),
}

/// A compiled filter; copies share it.
#[derive(Clone, Debug)]
pub struct Filter(Arc<BpfProgram>);

/// The filters of a VMM, one per kind of thread.
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
    /// On which hosts, or in which moments that no test can arrange, it is needed; absent: always.
    pub untested: Option<&'static str>,
}

/// What must hold for an argument.
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
const ALLOCATOR: &str = "the allocator asks for it where its heap happens to be full or empty";
const CLOCK: &str = "where the host's clock cannot be read without a system call";
const PANIC: &str = "a panic names its thread in its last words";
const STOPPED: &str = "after the process was stopped or frozen during a call with a time limit";

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
    // the C library's part of a kick
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
    // the end
    rule("gettid", libc::SYS_gettid).untested(PANIC),
    rule("sigaltstack", libc::SYS_sigaltstack),
    rule("exit_group", libc::SYS_exit_group),
];

/// A vCPU thread's calls: entering the guest, and what devices do within an access to their registers. A driver that
/// resets the socket device ends its streams here.
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
    // the end
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
    /// Allows what `rules` say and kills the process for anything else.
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

    /// Puts the calling thread under the filter, for good.
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

    /// A call with a condition beside the same call without one would be allowed either way.
    #[test]
    fn no_rule_undoes_another() {
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
