//! What holds a pod's namespaces: a process that reaps its children, ends at SIGTERM or SIGINT with status 0, and otherwise sleeps.
//!
//! It is the init of the pod's pid namespace if containers share it. It makes four system calls, and is a few KiB in the memory of each pod.
#![cfg_attr(not(test), no_std)]
#![expect(unsafe_code, reason = "system calls without a library")]

use core::arch::asm;

/// `arch/x86/entry/syscalls/syscall_64.tbl`
const RT_SIGPROCMASK: usize = 14;
const EXIT: usize = 60;
const WAIT4: usize = 61;
const RT_SIGTIMEDWAIT: usize = 128;

const SIG_BLOCK: usize = 0;
const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const WNOHANG: usize = 1;
/// Size of the kernel's signal sets in bytes.
const SET_BYTES: usize = 8;

/// The signals that are waited for. They are blocked: the kernel would drop those that an init does not handle, but keeps blocked ones.
const AWAITED: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);

/// Reaps children until SIGTERM or SIGINT comes, and exits.
pub fn run() -> ! {
    let set = AWAITED;
    let awaited = &raw const set as usize;
    // SAFETY: the set is read, and outlives the call; a null pointer for the old set is allowed.
    unsafe { call(RT_SIGPROCMASK, [SIG_BLOCK, awaited, 0, SET_BYTES]) };
    loop {
        // SAFETY: as above; null pointers: no details of the signal, no limit of time.
        let signal = unsafe { call(RT_SIGTIMEDWAIT, [awaited, 0, 0, SET_BYTES]) };
        match usize::try_from(signal) {
            Ok(SIGINT | SIGTERM) => exit(0),
            // One SIGCHLD may stand for several children. SAFETY: null pointers: neither status nor usage is written.
            _ => while unsafe { call(WAIT4, [usize::MAX, 0, WNOHANG, 0]) } > 0 {},
        }
    }
}

/// Ends the process.
pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: exit takes a number.
        unsafe { call(EXIT, [status, 0, 0, 0]) };
    }
}

/// A system call of four arguments.
///
/// # Safety
/// The arguments are what that call takes, and pointers among them are valid for it.
unsafe fn call(number: usize, arguments: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the kernel's convention (`syscall(2)`): RCX and R11 are overwritten, all other registers kept.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::{
            signal::{Signal, kill},
            wait::{WaitStatus, waitpid},
        },
        unistd::{ForkResult, Pid, fork},
    };
    use std::{fs, thread, time::Duration};

    /// Starts it with a child that ends at once; what it is, and that child's pid.
    fn started() -> Pid {
        // SAFETY: the child makes system calls only.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // SAFETY: as above.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    thread::sleep(Duration::from_millis(50));
                    exit(3)
                }
                run()
            }
        }
    }

    fn children(of: Pid) -> String {
        fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap()
    }

    #[test]
    fn children_are_reaped_and_it_ends_at_a_signal() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let pause = started();
            let gone = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(20));
                children(pause).is_empty()
            });
            assert!(gone, "a zombie is left");
            kill(pause, Signal::SIGCHLD).unwrap();
            thread::sleep(Duration::from_millis(20));
            assert!(
                fs::read_to_string(format!("/proc/{pause}/stat")).unwrap().contains(") S "),
                "it sleeps"
            );
            kill(pause, signal).unwrap();
            assert_eq!(waitpid(pause, None).unwrap(), WaitStatus::Exited(pause, 0));
        }
    }
}
