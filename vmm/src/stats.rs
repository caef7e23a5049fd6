//! KVM's own counters of a vCPU, through the binary statistics descriptor (`KVM_GET_STATS_FD`; Linux 5.14).
//!
//! Layout: Documentation/virt/kvm/api.rst, 4.133. The descriptor has to be opened before the vCPU runs, because the ioctl
//! waits while the vCPU is in the guest. Reading the descriptor does not.
#![expect(unsafe_code, reason = "kvm-ioctls has no wrapper for KVM_GET_STATS_FD")]

use kvm_ioctls::VcpuFd;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
};

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;
/// `struct kvm_stats_header` and the fixed part of `struct kvm_stats_desc`.
const HEADER_BYTES: usize = 24;
const DESCRIPTOR_BYTES: usize = 16;
/// Far above any kernel's number of counters; bounds the allocation below.
const COUNTERS_MAX: u32 = 1024;
const NAME_MAX_BYTES: u32 = 256;
/// `KVM_STATS_TYPE_MASK`, and the last scalar type (peak); histograms follow.
const TYPE_MASK: u32 = 0xf;
const TYPE_PEAK: u32 = 2;

/// The counters of one vCPU.
#[derive(Debug)]
pub struct VcpuStats(File);

impl VcpuStats {
    /// Opens the descriptor; to be called before the vCPU first runs.
    pub fn open(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the ioctl takes no argument and `vcpu` is an open vCPU descriptor.
        let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the ioctl has just returned this new descriptor; nothing else owns it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// Adds every scalar counter to `sums` under KVM's name.
    pub fn add_to(&self, sums: &mut BTreeMap<String, u64>) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact_at(&mut header, 0)?;
        let [_flags, name_bytes, count, _id, descriptors, data] = [0, 4, 8, 12, 16, 20].map(|at| u32_at(&header, at));
        if count > COUNTERS_MAX || name_bytes > NAME_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let stride = DESCRIPTOR_BYTES + name_bytes as usize;
        let mut table = vec![0; stride * count as usize];
        self.0.read_exact_at(&mut table, descriptors.into())?;
        for entry in table.chunks_exact(stride) {
            if u32_at(entry, 0) & TYPE_MASK > TYPE_PEAK {
                continue;
            }
            let mut value = [0; 8];
            self.0.read_exact_at(&mut value, u64::from(data) + u64::from(u32_at(entry, 8)))?;
            let name = entry[DESCRIPTOR_BYTES..].split(|b| *b == 0).next().unwrap_or_default();
            let sum = sums.entry(String::from_utf8_lossy(name).into_owned()).or_default();
            *sum = sum.saturating_add(u64::from_le_bytes(value));
        }
        Ok(())
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
