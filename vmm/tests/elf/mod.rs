//! A minimal ELF kernel.

/// Where guests run: 1 MiB.
const CODE: u64 = 0x10_0000;

/// An ELF executable with one segment: the code, and zeros up to 1 MiB.
pub fn executable(code: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 0x1000];
    b[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    b[16..20].copy_from_slice(&[2, 0, 62, 0]);
    b[24..32].copy_from_slice(&CODE.to_le_bytes());
    b[32] = 64;
    (b[54], b[56], b[64]) = (56, 1, 1);
    for (at, value) in [(72, 0x1000), (88, CODE), (96, code.len() as u64), (104, 1 << 20)] {
        b[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    b.extend_from_slice(code);
    b
}
