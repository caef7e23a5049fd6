//! The system calls that the puller may make once it has its job: those of the converter, TCP connections and the resolver.
//!
//! The test `pulls` of `guest-images` pulls under the table, and again without each rule, so that none is missing or unnecessary.

use confine::seccomp::{Condition, Filter, FilterError, NOT_EXECUTABLE, Rule, equal, rule};

/// What `pthread_create` of the C library passes: a thread of this process and nothing else.
const THREAD: &[Condition] = &[equal(
    0,
    (libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID) as u64,
)];
const NAME: &[Condition] = &[equal(0, libc::PR_SET_NAME as u64)];
const IPV4: &[Condition] = &[equal(0, libc::AF_INET as u64)];
const IPV6: &[Condition] = &[equal(0, libc::AF_INET6 as u64)];
const ROUTES: &[Condition] = &[equal(0, libc::AF_NETLINK as u64), equal(2, libc::NETLINK_ROUTE as u64)];
const UNIX: &[Condition] = &[equal(0, libc::AF_UNIX as u64)];
const DUPLICATE: &[Condition] = &[equal(1, libc::F_DUPFD_CLOEXEC as u64)];
const GET_FLAGS: &[Condition] = &[equal(1, libc::F_GETFL as u64)];
const SET_FLAGS: &[Condition] = &[equal(1, libc::F_SETFL as u64)];
const NON_BLOCKING: &[Condition] = &[equal(1, libc::FIONBIO)];
const AVAILABLE: &[Condition] = &[equal(1, libc::FIONREAD)];

const ALLOCATOR: &str = "depends on how full the allocator's heap is";
const CLOCK: &str = "needed on hosts whose clock source has no vDSO";
const PANIC: &str = "needed for the message of a panic";
const STOPPED: &str = "needed after SIGSTOP or a cgroup freeze during a call";
const LIBRARY: &str = "depends on the version of the C library";
const TIMING: &str = "depends on which of two threads, or ends of a connection, comes first";
const RESOLVER: &str = "the resolver's, which a registry named by its address does not need";

/// The calls.
pub const RULES: &[Rule] = &[
    // files, report
    rule("read", libc::SYS_read),
    rule("write", libc::SYS_write),
    rule("lseek", libc::SYS_lseek),
    rule("close", libc::SYS_close),
    rule("fstat", libc::SYS_fstat).untested(LIBRARY),
    rule("statx", libc::SYS_statx).untested(LIBRARY),
    // connections
    rule("socket AF_INET", libc::SYS_socket).only(IPV4),
    rule("socket AF_INET6", libc::SYS_socket)
        .only(IPV6)
        .untested("needs a registry with an IPv6 address"),
    rule("connect", libc::SYS_connect),
    rule("sendto", libc::SYS_sendto).untested(RESOLVER),
    rule("recvfrom", libc::SYS_recvfrom),
    rule("writev", libc::SYS_writev).untested(TIMING),
    rule("sendmsg", libc::SYS_sendmsg).untested(TIMING),
    rule("recvmsg", libc::SYS_recvmsg).untested(RESOLVER),
    rule("getsockopt", libc::SYS_getsockopt),
    rule("setsockopt", libc::SYS_setsockopt),
    rule("getpeername", libc::SYS_getpeername).untested(TIMING),
    rule("getsockname", libc::SYS_getsockname).untested(TIMING),
    rule("shutdown", libc::SYS_shutdown).untested(TIMING),
    rule("getrandom", libc::SYS_getrandom).untested("needed where a seed of the thread's own is not enough"),
    // the runtime
    rule("epoll_create1", libc::SYS_epoll_create1),
    rule("epoll_ctl", libc::SYS_epoll_ctl),
    rule("epoll_wait", libc::SYS_epoll_wait),
    rule("epoll_pwait", libc::SYS_epoll_pwait).untested(LIBRARY),
    rule("eventfd2", libc::SYS_eventfd2),
    rule("socketpair", libc::SYS_socketpair)
        .only(&[equal(0, libc::AF_UNIX as u64)])
        .untested("the runtime's pipe for signals"),
    rule("fcntl F_DUPFD_CLOEXEC", libc::SYS_fcntl).only(DUPLICATE).untested(LIBRARY),
    rule("fcntl F_GETFL", libc::SYS_fcntl).only(GET_FLAGS).untested(LIBRARY),
    rule("fcntl F_SETFL", libc::SYS_fcntl).only(SET_FLAGS).untested(LIBRARY),
    rule("ioctl FIONBIO", libc::SYS_ioctl).only(NON_BLOCKING).untested(LIBRARY),
    rule("uname", libc::SYS_uname).untested(RESOLVER),
    // the resolver; what it opens is an empty root's
    rule("openat", libc::SYS_openat).untested(RESOLVER),
    rule("newfstatat", libc::SYS_newfstatat).untested(RESOLVER),
    rule("socket NETLINK_ROUTE", libc::SYS_socket).only(ROUTES).untested(RESOLVER),
    // The C library asks for a name service, whose socket no empty root has; the guest has no abstract sockets.
    rule("socket AF_UNIX", libc::SYS_socket).only(UNIX).untested(RESOLVER),
    rule("bind", libc::SYS_bind).untested(RESOLVER),
    rule("sendmmsg", libc::SYS_sendmmsg).untested(RESOLVER),
    rule("poll", libc::SYS_poll).untested(RESOLVER),
    rule("ioctl FIONREAD", libc::SYS_ioctl).only(AVAILABLE).untested(RESOLVER),
    // threads
    rule("clone", libc::SYS_clone).only(THREAD),
    // Refused with ENOSYS, see `install`: its flags are in memory, where no filter sees them.
    rule("clone3", libc::SYS_clone3),
    rule("futex", libc::SYS_futex),
    rule("set_robust_list", libc::SYS_set_robust_list),
    rule("rseq", libc::SYS_rseq).untested(LIBRARY),
    rule("prctl PR_SET_NAME", libc::SYS_prctl).only(NAME),
    rule("sched_getaffinity", libc::SYS_sched_getaffinity).untested(LIBRARY),
    rule("rt_sigaction", libc::SYS_rt_sigaction),
    rule("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    rule("sigaltstack", libc::SYS_sigaltstack),
    rule("gettid", libc::SYS_gettid).untested(PANIC),
    rule("sched_yield", libc::SYS_sched_yield).untested(TIMING),
    rule("exit", libc::SYS_exit).untested(TIMING),
    // memory
    rule("mmap", libc::SYS_mmap).only(NOT_EXECUTABLE),
    rule("munmap", libc::SYS_munmap),
    rule("mprotect", libc::SYS_mprotect).only(NOT_EXECUTABLE),
    rule("mremap", libc::SYS_mremap).untested(ALLOCATOR),
    rule("madvise", libc::SYS_madvise).untested(ALLOCATOR),
    rule("brk", libc::SYS_brk).untested(ALLOCATOR),
    // time
    rule("clock_gettime", libc::SYS_clock_gettime).untested(CLOCK),
    rule("restart_syscall", libc::SYS_restart_syscall).untested(STOPPED),
    // exit
    rule("exit_group", libc::SYS_exit_group),
    // the end of a process whose memory is at its limit: SIGABRT for itself
    rule("getpid", libc::SYS_getpid).untested(PANIC),
    rule("tgkill", libc::SYS_tgkill)
        .only(&[confine::seccomp::own_process(0), equal(2, libc::SIGABRT as u64)])
        .untested(PANIC),
];

/// Installs the filter; threads that are started later inherit it.
///
/// # Errors
/// When the kernel has no seccomp filters.
pub fn install<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<(), FilterError> {
    let allowed = Filter::allowing(rules)?;
    // The C library then takes clone(2), whose flags are an argument.
    Filter::absent(libc::SYS_clone3)?.install()?;
    allowed.install()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_overrides_another() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(!RULES[..i].iter().any(|earlier| earlier.overrides(rule)), "{}", rule.name);
        }
        assert!(Filter::allowing(RULES).is_ok());
    }
}
