//! A KVM with SEV-SNP inside this process. `open`, `open64` and `ioctl` have the names of the C library's functions, so that the VMM's
//! own code, with every wrapper that it uses, calls these: what is recorded are the bytes that a kernel would get.
//!
//! Each call is a line of standard error, `# NAME LENGTH: BYTES`, in order: the bytes of its structure up to the last that is not zero,
//! with zeros in place of addresses and descriptors.

mod guest;
mod vm;

pub use guest::Step;

use super::model::Host;
use std::{
    ffi::{CStr, c_char, c_int, c_ulong, c_void},
    io::Write,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};
use vm::Kernel;

/// What this KVM is like, and what its guest does.
#[derive(Clone)]
pub struct Behaviour {
    /// Whether there are SNP VMs.
    pub snp: bool,
    /// `KVM_X86_SNP_POLICY_BITS`.
    pub policy_bits: Option<u64>,
    /// `KVM_X86_SEV_SNP_REQ_CERTS`.
    pub certificates: bool,
    /// Whether attributes are those of guest_memfds.
    pub in_place: bool,
    /// Position of the C-bit.
    pub encryption_bit: u32,
    /// The secure processor.
    pub psp: Host,
    /// What the first vCPU does.
    pub steps: Vec<Step>,
}

static KERNEL: OnceLock<Mutex<Kernel>> = OnceLock::new();

/// From now on this process has this KVM.
pub fn install(behaviour: Behaviour) {
    let _ = KERNEL.set(Mutex::new(Kernel::new(behaviour)));
}

fn lock(kernel: &'static Mutex<Kernel>) -> MutexGuard<'static, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line of the record, with one system call.
fn record(line: &str) {
    let _ = std::io::stderr().write_all(format!("# {line}\n").as_bytes());
}

fn failed(errno: c_int) -> c_int {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Files for every descriptor that this KVM gives out. They are made at its first call, as the VMM's jail allows no file to grow, and
/// are large enough for any of them.
static FILES: Mutex<Vec<c_int>> = Mutex::new(Vec::new());
const FILE_BYTES: libc::off_t = 256 << 20;

fn descriptor() -> c_int {
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    files.pop().expect("a file is left")
}

fn make_files() {
    let file = |_| {
        // SAFETY: a new descriptor; its length is set.
        unsafe {
            let fd = libc::memfd_create(c"fake".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::ftruncate(fd, FILE_BYTES), 0);
            fd
        }
    };
    FILES.lock().unwrap_or_else(PoisonError::into_inner).extend((0..16).map(file));
}

/// Maps a descriptor of this fake, for ever.
fn map(fd: c_int, bytes: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0) };
    assert_ne!(address, libc::MAP_FAILED);
    address.cast()
}

/// The descriptor of `/dev/sev` while it is open, and -1 then.
static SEV: AtomicI32 = AtomicI32::new(-1);

/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    let _ = SEV.compare_exchange(fd, -1, Ordering::Relaxed, Ordering::Relaxed);
    // SAFETY: as the caller says.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

unsafe fn open_file(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's path.
    let name = unsafe { CStr::from_ptr(path) };
    if KERNEL.get().is_some() && [c"/dev/kvm", c"/dev/sev"].contains(&name) {
        record(&format!("open {}", name.to_string_lossy()));
        if name == c"/dev/kvm" {
            make_files();
        }
        let fd = descriptor();
        if name == c"/dev/sev" {
            SEV.store(fd, Ordering::Relaxed);
        }
        return fd;
    }
    // SAFETY: as the caller says.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}

/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_file(path, flags, mode) }
}

/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_file(path, flags, mode) }
}

/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let is_kvm = request >> 8 & 0xff == c_ulong::from(kvm_bindings::KVMIO);
    let Some(kernel) = KERNEL.get().filter(|_| is_kvm) else {
        // SAFETY: as the caller says.
        return unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int };
    };
    // The thread's seccomp filter judges the call as that of a real KVM: it fails afterwards, on no descriptor.
    // SAFETY: nothing is read or written for a descriptor that does not exist.
    unsafe { libc::syscall(libc::SYS_ioctl, -1, request, argument) };
    if request == vm::KVM_RUN {
        return guest::run(kernel, fd);
    }
    // SAFETY: the argument is what KVM would get.
    unsafe { lock(kernel).ioctl(fd, request, argument) }.unwrap_or_else(failed)
}
