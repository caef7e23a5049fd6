//! The BPF program that gives one listener every TCP connection to loopback, whatever its port (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9;
//! `include/uapi/linux/bpf.h`).
//!
//! It is asked where the kernel looks for a listening socket. Connections that exist are found before.

use std::{
    fs::File,
    io,
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_PSEUDO_MAP_FD: u8 = 1;
/// Helpers, by number.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// Places of the listeners in the map.
const V4: u32 = 0;
const V6: u32 = 1;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The parts of `union bpf_attr` for the commands above.
#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

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
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// A program that is attached to a namespace; dropping this detaches it.
#[derive(Debug)]
pub struct Attached {
    link: OwnedFd,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut link_fd = self.link.as_raw_fd() as u32;
        // A process that was forked a moment ago and has not called exec yet has the descriptor too: closing ours alone may detach nothing.
        // SAFETY: the command's structure is one `__u32 link_fd`, which contains no pointer.
        let _ = unsafe { bpf(BPF_LINK_DETACH, &mut link_fd) };
    }
}

/// Gives the listeners every connection to loopback in `netns`.
pub fn attach(netns: &File, v4: &TcpListener, v6: Option<&TcpListener>) -> io::Result<Attached> {
    let map = map()?;
    for (key, listener) in [(V4, Some(v4)), (V6, v6)] {
        if let Some(listener) = listener {
            put(&map, key, listener)?;
        }
    }
    let program = load(&program(map.as_raw_fd()))?;
    let mut attributes = LinkAttributes {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: netns.as_raw_fd() as u32,
        attach_type: BPF_SK_LOOKUP,
        flags: 0,
    };
    // SAFETY: the structure has the kernel's layout for this command and contains no pointers.
    let link = unsafe { descriptor(BPF_LINK_CREATE, &mut attributes) }?;
    // The link keeps the program, which keeps the map.
    Ok(Attached { link })
}

fn map() -> io::Result<OwnedFd> {
    let mut attributes = MapAttributes {
        map_type: BPF_MAP_TYPE_SOCKMAP,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u64>() as u32,
        max_entries: 2,
    };
    // SAFETY: the structure has the kernel's layout for this command and contains no pointers.
    unsafe { descriptor(BPF_MAP_CREATE, &mut attributes) }
}

fn put(map: &OwnedFd, key: u32, listener: &TcpListener) -> io::Result<()> {
    let value = listener.as_raw_fd() as u64;
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd() as u32,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        ..ElementAttributes::default()
    };
    // SAFETY: the structure has the kernel's layout for this command; both pointers are to live values of the map's sizes, which the
    // kernel only reads.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: BPF_SK_LOOKUP,
        ..LoadAttributes::default()
    };
    // SAFETY: the structure has the kernel's layout for this command; both pointers are to live memory of the length given (the license is
    // NUL-terminated), which the kernel only reads.
    unsafe { descriptor(BPF_PROG_LOAD, &mut attributes) }
}

/// The bpf system call, for a command that returns a new descriptor.
///
/// # Safety
/// As [`bpf`].
unsafe fn descriptor<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller promises what `bpf` asks for.
    let descriptor = unsafe { bpf(command, attributes) }?;
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

/// r1 points to `struct bpf_sk_lookup`; the result 1 in r0 lets the kernel go on, with the assigned socket if there is one.
fn program(map: i32) -> Vec<Instruction> {
    // Of struct bpf_sk_lookup.
    const FAMILY: i16 = 8;
    const PROTOCOL: i16 = 12;
    const LOCAL_IP4: i16 = 40;
    const LOCAL_IP6: i16 = 44;
    let load_word = |register: u8, offset: i16| op(0x61, 0x60 | register, offset, 0);
    // Jumps to the end have their distance filled in below.
    const END: i16 = i16::MAX;
    let mut program = vec![
        op(0xbf, 0x16, 0, 0), // r6 = r1
        load_word(2, PROTOCOL),
        op(0x55, 0x02, END, libc::IPPROTO_TCP),
        load_word(2, FAMILY),
        op(0x15, 0x02, 5, libc::AF_INET6),
        op(0x55, 0x02, END, libc::AF_INET),
        // The first byte of the address, in network order.
        load_word(2, LOCAL_IP4),
        op(0x57, 0x02, 0, 0xff),
        op(0x55, 0x02, END, 127),
        op(0x05, 0, 10, 0), // to r3 = V4
        load_word(2, LOCAL_IP6),
        op(0x55, 0x02, END, 0),
        load_word(2, LOCAL_IP6 + 4),
        op(0x55, 0x02, END, 0),
        load_word(2, LOCAL_IP6 + 8),
        op(0x55, 0x02, END, 0),
        load_word(2, LOCAL_IP6 + 12),
        op(0x55, 0x02, END, 1_i32.to_be()),
        op(0xb7, 0x03, 0, V6 as i32),
        op(0x05, 0, 1, 0),
        op(0xb7, 0x03, 0, V4 as i32),
        op(0x63, 0x3a, -4, 0), // *(u32 *)(r10 - 4) = r3
        op(0x18, BPF_PSEUDO_MAP_FD << 4 | 1, 0, map),
        op(0, 0, 0, 0),
        op(0xbf, 0xa2, 0, 0),  // r2 = r10
        op(0x07, 0x02, 0, -4), // r2 += -4
        op(0x85, 0, 0, MAP_LOOKUP_ELEM),
        op(0x15, 0x00, END, 0),
        op(0xbf, 0x07, 0, 0), // r7 = r0
        op(0xbf, 0x61, 0, 0),
        op(0xbf, 0x72, 0, 0),
        op(0xb7, 0x03, 0, 0),
        op(0x85, 0, 0, SK_ASSIGN),
        op(0xbf, 0x71, 0, 0),
        op(0x85, 0, 0, SK_RELEASE),
    ];
    let end = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if instruction.offset == END {
            instruction.offset = (end - at - 1) as i16;
        }
    }
    program.extend([op(0xb7, 0x00, 0, 1), op(0x95, 0, 0, 0)]);
    program
}

/// `code` of Documentation/bpf/standardization: 0x61 load word, 0x63 store word, 0xbf move, 0x57 and, 0x07 add, 0x15/0x55 jump if
/// (not) equal, 0x05 jump, 0x18 load 64 bits, 0xb7 move number, 0x85 call, 0x95 exit. Low half of `registers` is the destination.
fn op(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate,
    }
}
