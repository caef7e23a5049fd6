//! Minimal guests that print a marker: an `/init` of 200 bytes, and a kernel that prints with its first instruction.

use anyhow::{Context, Result};
use guest_image::initramfs::Builder;

/// What the `/init` writes to its console.
pub const INIT_MARKER: &str = "/init";
/// What a kernel made by [`first_instruction`] writes to the serial port.
pub const KERNEL_MARKER: &str = "V";
/// Length of the initramfs in comparisons.
const INITRAMFS_BYTES: usize = 16 * 1024;

/// write(1, message, 6), then pause() forever: x86-64 Linux.
#[rustfmt::skip]
const INIT_CODE: [u8; 33] = [
    0xb8, 1, 0, 0, 0,               // mov eax, 1 (write)
    0xbf, 1, 0, 0, 0,               // mov edi, 1
    0x48, 0x8d, 0x35, 16, 0, 0, 0,  // lea rsi, [rip + 16]: the message after the code
    0xba, 6, 0, 0, 0,               // mov edx, 6
    0x0f, 0x05,                     // syscall
    0xb8, 34, 0, 0, 0,              // mov eax, 34 (pause)
    0x0f, 0x05,                     // syscall
    0xeb, 0xf7,                     // jump back to the pause
];
/// Writes a line to COM1 and halts; the same bytes work in 64-bit and in 32-bit mode. A whole line, because the VMM buffers partial ones.
#[rustfmt::skip]
const KERNEL_CODE: [u8; 13] = [
    0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
    0xb0, b'V',              // mov al, 'V'
    0xee,                    // out dx, al
    0xb0, b'\n',             // mov al, '\n'
    0xee,                    // out dx, al
    0xf4,                    // hlt
    0xeb, 0xfd,              // jmp to the hlt
];
const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADERS_BYTES: u64 = 64 + 56;

/// The initramfs with the `/init` that prints a marker; padded to 16 KiB, or with a file of `ballast` bytes.
pub fn initramfs(ballast: usize) -> Result<Vec<u8>> {
    let mut archive = Builder::of_program(&init(), &vec![0x5a; ballast])?.into_bytes();
    let length = archive.len().max(INITRAMFS_BYTES);
    archive.resize(length, 0);
    Ok(archive)
}

/// A static ELF executable (ELF-64 object file format: header, one program header, code).
fn init() -> Vec<u8> {
    let code = [&INIT_CODE[..], INIT_MARKER.as_bytes(), b"\n"].concat();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64, version 1.
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for field in [LOAD_ADDRESS + HEADERS_BYTES, 64, 0] {
        elf.extend_from_slice(&field.to_le_bytes());
    }
    // Flags, sizes and counts of headers; no sections.
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    elf.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    let length = HEADERS_BYTES + code.len() as u64;
    for field in [0, LOAD_ADDRESS, LOAD_ADDRESS, length, length, 4096] {
        elf.extend_from_slice(&field.to_le_bytes());
    }
    elf.extend_from_slice(&code);
    elf
}

/// A copy of an ELF kernel that prints with its first instruction and halts: it costs as much to load, and nothing to run.
pub fn first_instruction(vmlinux: &[u8]) -> Result<Vec<u8>> {
    let number = |at: usize, length: usize| -> Result<u64> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(vmlinux.get(at..at + length).context("the kernel file is truncated")?);
        Ok(u64::from_le_bytes(bytes))
    };
    let (entry, table, count) = (number(24, 8)?, number(32, 8)? as usize, number(56, 2)? as usize);
    for header in (0..count).map(|n| table + n * 56) {
        let (offset, physical, bytes) = (number(header + 8, 8)?, number(header + 24, 8)?, number(header + 32, 8)?);
        if number(header, 4)? == 1 && (physical..physical + bytes).contains(&entry) {
            let at = (offset + entry - physical) as usize;
            let mut kernel = vmlinux.to_vec();
            kernel
                .get_mut(at..at + KERNEL_CODE.len())
                .context("the kernel is truncated at its entry point")?
                .copy_from_slice(&KERNEL_CODE);
            return Ok(kernel);
        }
    }
    anyhow::bail!("no segment of the kernel contains its entry point {entry:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_prints_on_this_kernel_too() {
        use std::io::Read;
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        std::fs::write(&path, init()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(&said, b"/init\n");
        assert_eq!(initramfs(0).unwrap().len(), INITRAMFS_BYTES);
    }

    #[test]
    fn the_entry_point_is_replaced() {
        let mut elf = init();
        elf.resize(4096, 0x90);
        let length = elf.len() as u64;
        elf[96..104].copy_from_slice(&length.to_le_bytes());
        let patched = first_instruction(&elf).unwrap();
        assert_eq!(patched[HEADERS_BYTES as usize..][..KERNEL_CODE.len()], KERNEL_CODE);
        assert_eq!(patched.len(), elf.len());
        assert!(first_instruction(&elf[..100]).is_err());
    }
}
