//! The device filter of a container's cgroup: which device nodes its processes may open.
//!
//! Device nodes can be created with CAP_MKNOD, which containers have by default; without a filter a container could open the
//! decrypted scratch disk. cgroup v2 has no device files: a BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE decides
//! (`include/uapi/linux/bpf.h`). The list is fixed in the guest ([`DEVICES`]); the device rules of the host's
//! document are not used.

#![expect(unsafe_code, reason = "the bpf system call has no wrapper")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use launcher_protocol::DEVICES;

// Numbers of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// BPF_F_ALLOW_MULTI: programs may be attached in cgroups above and below; all of them must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;
const DEVICE_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD up to `prog_flags`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Attaches the filter to the cgroup at `cgroup`, which must exist.
///
/// # Errors
/// The directory is no cgroup v2, or the kernel rejects the program.
pub fn attach(cgroup: &Path) -> io::Result<()> {
    let directory = File::open(cgroup)?;
    let program = load(&program())?;
    let mut attributes = AttachAttributes {
        target_fd: directory.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the structure has the kernel's layout for this command and contains no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the structure has the kernel's layout for this command; both pointers are to live memory of the
    // length given (the license is NUL-terminated), which the kernel only reads.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    // SAFETY: the kernel has just returned this new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The bpf system call.
///
/// # Safety
/// `T` must have the layout of `union bpf_attr` for `command`, and what it points to must live for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: pointer and size are those of one live value; the caller promises the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as libc::c_int)
    }
}

/// r1 points to `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`; the result 1 in r0 allows.
fn program() -> Vec<Instruction> {
    let mut program = vec![
        load_word(2, 0),
        load_word(4, 4),
        load_word(5, 8),
        // r3 = type, r2 = access
        op(0xbf, 0x23, 0, 0),
        op(0x57, 0x03, 0, 0xffff),
        op(0x77, 0x02, 0, 16),
        // Creating a node is harmless, opening it is not.
        op(0x55, 0x02, 2, ACCESS_MKNOD),
        op(0xb7, 0x00, 0, 1),
        op(0x95, 0, 0, 0),
        op(0x15, 0x03, 2, DEVICE_CHAR),
        op(0xb7, 0x00, 0, 0),
        op(0x95, 0, 0, 0),
    ];
    for (major, minor) in DEVICES {
        let compare_minor = minor.map(|minor| op(0x55, 0x05, 2, minor as i32));
        program.push(op(0x55, 0x04, 2 + compare_minor.is_some() as i16, major as i32));
        program.extend(compare_minor);
        program.extend([op(0xb7, 0x00, 0, 1), op(0x95, 0, 0, 0)]);
    }
    program.extend([op(0xb7, 0x00, 0, 0), op(0x95, 0, 0, 0)]);
    program
}

/// `code` of Documentation/bpf/standardization: 0x61 load word, 0xbf move, 0x57 and, 0x77 shift right, 0x15/0x55 jump
/// if (not) equal, 0xb7 move number, 0x95 exit. Low half of `registers` is the destination.
fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate,
    }
}

fn load_word(register: u8, offset: i16) -> Instruction {
    op(0x61, 0x10 | register, offset, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the subset of BPF used above as the kernel does.
    fn allows(kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let program = program();
        let context = [(access << 16) | kind, major, minor];
        let (mut registers, mut at) = ([0i64; 11], 0);
        loop {
            let Instruction {
                code,
                registers: r,
                offset,
                immediate,
            } = program[at];
            let (to, from) = ((r & 15) as usize, (r >> 4) as usize);
            at += 1;
            match code {
                0x61 => registers[to] = i64::from(context[offset as usize / 4] as u32),
                0xbf => registers[to] = registers[from],
                0x57 => registers[to] &= i64::from(immediate),
                0x77 => registers[to] >>= immediate,
                0xb7 => registers[to] = i64::from(immediate),
                0x15 if registers[to] == i64::from(immediate) => at += offset as usize,
                0x55 if registers[to] != i64::from(immediate) => at += offset as usize,
                0x15 | 0x55 => {}
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn only_harmless_nodes_can_be_opened() {
        const BLOCK: i32 = 1;
        const READ_WRITE: i32 = 6;
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            assert!(allows(DEVICE_CHAR, READ_WRITE, major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(1, 1), (1, 4), (1, 11), (5, 1), (10, 236), (4, 64), (0, 0), (137, 0)] {
            assert!(!allows(DEVICE_CHAR, READ_WRITE, major, minor), "{major}:{minor}");
        }
        for major in [1, 136, 253, 254] {
            assert!(!allows(BLOCK, 2, major, 3));
            assert!(allows(BLOCK, ACCESS_MKNOD, major, 3));
        }
        assert!(!allows(DEVICE_CHAR, ACCESS_MKNOD | 2, 10, 236), "making and reading at once");
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: loading a program needs root");
            return;
        }
        load(&program()).unwrap();
    }
}
