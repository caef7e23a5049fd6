//! The system calls that the converter may make once it reads the blob: reading, writing, memory, threads.
//!
//! `tests/seccomp.rs` converts a layer under the table, and again with each rule removed, so that no rule is missing and none is
//! unnecessary.

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

const ALLOCATOR: &str = "depends on how full the allocator's heap is";
const CLOCK: &str = "needed on hosts whose clock source has no vDSO";
const PANIC: &str = "needed for the message of a panic";
const STOPPED: &str = "needed after SIGSTOP or a cgroup freeze during a call";
const LIBRARY: &str = "depends on the version of the C library";

/// The calls.
pub const RULES: &[Rule] = &[
    // blob, image and report
    rule("read", libc::SYS_read),
    rule("write", libc::SYS_write),
    rule("lseek", libc::SYS_lseek),
    rule("close", libc::SYS_close),
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
    rule("sched_yield", libc::SYS_sched_yield).untested("needed where two threads meet in a channel"),
    rule("exit", libc::SYS_exit),
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
