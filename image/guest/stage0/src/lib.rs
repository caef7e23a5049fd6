//! The boot shim's check before it starts the kernel: kernel and initramfs have the digests in the boot manifest.
//!
//! Kernel and initramfs are too large to be measured page by page, so the measured manifest carries their SHA-256.
//! The code runs without an allocator.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use boot_manifest::Manifest;
use sha2::{Digest, Sha256};

/// Why the guest must not start; the shim reports the number when it stops the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The kernel is not the measured one.
    Kernel = 0x10,
    /// The initramfs is not the measured one.
    Initrd = 0x11,
}

/// Compares both digests with the manifest. The slices must be in memory that the host can no longer change.
pub fn verify(manifest: &Manifest, kernel: &[u8], initrd: &[u8]) -> Result<(), Refusal> {
    if !same(&Sha256::digest(kernel).into(), &manifest.kernel_sha256) {
        return Err(Refusal::Kernel);
    }
    if !same(&Sha256::digest(initrd).into(), &manifest.initrd_sha256) {
        return Err(Refusal::Initrd);
    }
    Ok(())
}

/// Compares in constant time.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_manifest::Mode;

    fn manifest(kernel: &[u8], initrd: &[u8]) -> Manifest {
        Manifest {
            mode: Mode::Plain,
            kernel_sha256: Sha256::digest(kernel).into(),
            initrd_sha256: Sha256::digest(initrd).into(),
        }
    }

    #[test]
    fn each_changed_file_is_refused() {
        let m = manifest(b"kernel", b"initrd");
        assert_eq!(verify(&m, b"kernel", b"initrd"), Ok(()));
        assert_eq!(verify(&m, b"kernem", b"initrd"), Err(Refusal::Kernel));
        assert_eq!(verify(&m, b"kernel", b"initr"), Err(Refusal::Initrd));
        assert_eq!(verify(&m, b"initrd", b"kernel"), Err(Refusal::Kernel));
    }

    #[test]
    fn every_bit_counts() {
        let hash = [0x5a; 32];
        for bit in 0..256 {
            let mut other = hash;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!same(&hash, &other));
        }
        assert!(same(&hash, &hash));
    }
}
