//! Seccomp filters: the system calls that each thread may make once the guest may run.
//!
//! There is one table for the main thread, one for the network device's, one for those of disks, and one for vCPU threads, with another for
//! those of a guest with private memory. A call that the table does not allow kills the process
//! with SIGSYS ([`confine::seccomp`]). `tests/seccomp.rs` runs complete VMs under these tables, and again with each rule removed,
//! so that no rule is missing and none is unnecessary.

use confine::seccomp::{NOT_EXECUTABLE, equal, first_real_time_signal, ioctl, own_process, rule};

pub use confine::seccomp::{Filter, FilterError, Rule};

/// `_IO(KVMIO, 0x80)`: enters the guest.
const KVM_RUN: u64 = 0xae80;
/// `_IO(KVMIO, 0xad)`: marks the guest as paused.
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
/// `_IOR(KVMIO, 0x81, struct kvm_regs)`: the instruction address for the message of an internal error.
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// `_IOW(KVMIO, 0xd2, struct kvm_memory_attributes)`: makes memory private or shared.
const KVM_SET_MEMORY_ATTRIBUTES: u64 = 0x4020_aed2;
/// `_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)`, of a guest_memfd.
const KVM_SET_MEMORY_ATTRIBUTES2: u64 = 0xc080_aed2;

/// The filters of all kinds of threads.
#[derive(Clone, Debug)]
pub struct Filters {
    /// The main thread: event loop, queues of devices without a thread, control socket.
    pub main: Filter,
    /// The network device's thread.
    pub net: Filter,
    /// Each disk's thread.
    pub disk: Filter,
    /// Each vCPU thread.
    pub vcpu: Filter,
    /// Each vCPU thread of a guest with private memory.
    pub vcpu_conversions: Filter,
}

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
    // files of disks, and entropy
    rule("statx", libc::SYS_statx).only(&[equal(2, libc::AT_EMPTY_PATH as u64)]),
    rule("lseek SEEK_END", libc::SYS_lseek).only(&[equal(1, 0), equal(2, libc::SEEK_END as u64)]),
    rule("getrandom", libc::SYS_getrandom),
    // flags of the TAP and of volumes
    rule("fcntl F_GETFL", libc::SYS_fcntl).only(&[equal(1, libc::F_GETFL as u64)]),
    // KVM's counters
    rule("pread64", libc::SYS_pread64),
    // vCPU threads
    rule("futex", libc::SYS_futex),
    rule("tgkill", libc::SYS_tgkill).only(&[own_process(0), first_real_time_signal(2)]),
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

/// The calls of the network device's thread.
pub const NET: &[Rule] = &[
    // the event loop
    rule("epoll_wait", libc::SYS_epoll_wait),
    rule("epoll_ctl", libc::SYS_epoll_ctl),
    rule("read", libc::SYS_read),
    rule("write", libc::SYS_write),
    // the TAP
    rule("readv", libc::SYS_readv),
    rule("writev", libc::SYS_writev),
    rule("close", libc::SYS_close),
    // other threads
    rule("futex", libc::SYS_futex),
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

/// The calls of a disk's thread.
pub const DISK: &[Rule] = &[
    // the event loop
    rule("epoll_wait", libc::SYS_epoll_wait),
    rule("epoll_ctl", libc::SYS_epoll_ctl).untested("needed to silence a queue whose notifications lead to nothing"),
    rule("read", libc::SYS_read),
    rule("write", libc::SYS_write),
    // the disk
    rule("preadv", libc::SYS_preadv),
    rule("pwritev", libc::SYS_pwritev),
    rule("fdatasync", libc::SYS_fdatasync),
    rule("fallocate", libc::SYS_fallocate).only(&[equal(1, (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64)]),
    rule("close", libc::SYS_close),
    // other threads
    rule("futex", libc::SYS_futex),
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

/// What a vCPU thread of a guest with private memory calls besides: `madvise`, which gives shared pages back, is above.
pub const VCPU_CONVERSIONS: &[Rule] = &[
    ioctl("ioctl KVM_SET_MEMORY_ATTRIBUTES", &[equal(1, KVM_SET_MEMORY_ATTRIBUTES)]),
    ioctl("ioctl KVM_SET_MEMORY_ATTRIBUTES2", &[equal(1, KVM_SET_MEMORY_ATTRIBUTES2)]),
    rule("fallocate", libc::SYS_fallocate).only(&[equal(1, (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64)]),
];

impl Filters {
    /// All tables, compiled.
    pub fn new() -> Result<Self, FilterError> {
        Ok(Self {
            main: Filter::allowing(MAIN)?,
            net: Filter::allowing(NET)?,
            disk: Filter::allowing(DISK)?,
            vcpu: Filter::allowing(VCPU)?,
            vcpu_conversions: Filter::allowing(VCPU.iter().chain(VCPU_CONVERSIONS))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule without conditions would make a rule with conditions for the same call pointless.
    #[test]
    fn no_rule_overrides_another() {
        for table in [MAIN.to_vec(), NET.to_vec(), DISK.to_vec(), [VCPU, VCPU_CONVERSIONS].concat()] {
            for (i, rule) in table.iter().enumerate() {
                assert!(!table[..i].iter().any(|earlier| earlier.overrides(rule)), "{}", rule.name);
            }
        }
        assert!(Filters::new().is_ok());
    }
}
