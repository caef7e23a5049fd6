//! What the boot shim checks before it jumps: the loaded kernel and initramfs are the ones the boot manifest names.
//!
//! Gate 0 for guests that are entered through the shim: kernel and initramfs are too large to be measured page by
//! page, so the measured manifest carries their SHA-256 and this code compares. It runs before there is an allocator.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use boot_manifest::Manifest;
use sha2::{Digest, Sha256};

/// Why the guest must not be started; the number is what the shim reports when it ends the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The kernel is not the measured one.
    Kernel = 0x10,
    /// The initramfs is not the measured one.
    Initrd = 0x11,
}

/// Compares both with the manifest. The slices must lie in memory that the host can no longer change.
pub fn verify(manifest: &Manifest, kernel: &[u8], initrd: &[u8]) -> Result<(), Refusal> {
    if !same(&Sha256::digest(kernel).into(), &manifest.kernel_sha256) {
        return Err(Refusal::Kernel);
    }
    if !same(&Sha256::digest(initrd).into(), &manifest.initrd_sha256) {
        return Err(Refusal::Initrd);
    }
    Ok(())
}

/// Takes the same time wherever the two differ.
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
    fn each_swapped_file_is_refused_by_name() {
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
