//! The scratch: a disk, encrypted and authenticated with a key that never leaves this guest and formatted empty, or memory.
//!
//! ```text
//! encrypted:   ext4 ── dm-crypt (AES-XTS and HMAC-SHA-256, random IV) ── dm-integrity (holds IV and tag of each block) ── disk
//! unencrypted: ext4 ── dm-integrity (HMAC-SHA-256 of each block) ── disk
//! in memory:   tmpfs
//! ```
//! Neither disk is fresh: the host can return an older version of a block with the tag that it had.
//! Nothing is wiped: a block that was never written fails its integrity check and reads as an error, and ext4 reads none of
//! those. dm-integrity runs without a journal (mode D), as nothing here outlives the VM.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::sysinfo::sysinfo,
};
use policy::{
    ContainerId, Permit,
    action::{RwMountDevice, RwUnmountDevice},
};

use super::{
    SCRATCH, StorageError,
    device_mapper::{DeviceNumber, Mapped, Table},
    disk::Disk,
    overlay::unmount_point,
};
use crate::guest_dir::Directory;

/// AES-256-XTS takes 64 bytes, HMAC-SHA-256 takes 32.
const KEY_BYTES: usize = 96;
/// Authentication tag and IV that dm-integrity stores for each encrypted block.
const TAG_BYTES: u32 = 32 + 16;
/// Of an unencrypted disk: HMAC-SHA-256.
const HMAC_KEY_BYTES: usize = 32;
const HMAC_BYTES: u32 = 32;
/// Unit of encryption.
const SECTOR_BYTES: u32 = 4096;
/// Length of dm-integrity's superblock; zeros make it format the disk.
const SUPERBLOCK_BYTES: usize = 4096;
/// Length of the first table in 512-byte sectors, small enough for any disk.
const PROBE_SECTORS: u64 = 8;
const MOUNT_FLAGS: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOATIME);
/// ext4 must not read inodes that were never written, neither by read-ahead nor to initialise them later.
const MOUNT_OPTIONS: &str = "noinit_itable,inode_readahead_blks=0";

/// Bytes of memory for each inode of scratch in memory, which takes about 1 KiB of the kernel's memory beside its content.
const BYTES_PER_INODE: u64 = 8192;

/// The mounted scratch.
#[derive(Debug)]
pub struct Scratch {
    /// The sandbox it belongs to.
    pub sandbox: ContainerId,
    /// Whether what is written here leaves the guest encrypted, if at all.
    pub encrypted: bool,
    mounted: bool,
    crypt: Option<Mapped>,
    integrity: Option<Mapped>,
    /// Overlays that have their upper directory here.
    pub users: usize,
}

impl Scratch {
    /// Mounts an empty tmpfs where the permit says.
    ///
    /// overlayfs keeps `trusted.*` attributes there, which needs `CONFIG_TMPFS_XATTR`.
    pub fn in_memory(permit: Permit<'_, RwMountDevice>, sandbox: ContainerId) -> Result<Self, StorageError> {
        let memory = sysinfo().map_err(StorageError::io("reading the size of memory"))?.ram_total();
        let action = permit.action();
        let point = Directory::make(&action.target).map_err(StorageError::io("creating the scratch mount point"))?;
        mount(
            Some("scratch"),
            point.path().as_str(),
            Some("tmpfs"),
            MOUNT_FLAGS,
            Some(memory_options(memory).as_str()),
        )
        .map_err(StorageError::io("mounting scratch in memory"))?;
        let scratch = Self {
            sandbox,
            encrypted: action.encrypted,
            mounted: true,
            crypt: None,
            integrity: None,
            users: 0,
        };
        permit.commit();
        Ok(scratch)
    }

    /// Creates key, devices and file system, and mounts it where the permit says.
    pub fn on_disk(permit: Permit<'_, RwMountDevice>, sandbox: ContainerId, disk: &Disk) -> Result<Self, StorageError> {
        let action = permit.action();
        let mut scratch = Self {
            sandbox,
            encrypted: action.encrypted,
            mounted: false,
            crypt: None,
            integrity: None,
            users: 0,
        };
        let (device, sectors) = if action.encrypted {
            let (integrity, sectors) = format_integrity(disk, None)?;
            let crypt = open_crypt(integrity.number(), sectors)?;
            let device = crypt.path();
            // Dropped in this order if a later step fails: the upper device first.
            scratch.crypt = Some(crypt);
            scratch.integrity = Some(integrity);
            (device, sectors)
        } else {
            let mut key = [0; HMAC_KEY_BYTES];
            crate::sys::random(&mut key).map_err(StorageError::io("creating the scratch key"))?;
            let formatted = format_integrity(disk, Some(&key));
            key.fill(0);
            std::hint::black_box(&key);
            let (integrity, sectors) = formatted?;
            let device = integrity.path();
            scratch.integrity = Some(integrity);
            (device, sectors)
        };
        make_file_system(&device, sectors * 512)?;
        let point = Directory::make(&action.target).map_err(StorageError::io("creating the scratch mount point"))?;
        mount(Some(&device), point.path().as_str(), Some("ext4"), MOUNT_FLAGS, Some(MOUNT_OPTIONS))
            .map_err(StorageError::io("mounting the scratch disk"))?;
        scratch.mounted = true;
        permit.commit();
        Ok(scratch)
    }

    /// Unmounts it and drops the key. The next call repeats what failed.
    pub fn unmount(&mut self, permit: Permit<'_, RwUnmountDevice>) -> Result<(), StorageError> {
        let target = permit.action().unmount_target.as_str();
        if self.users > 0 {
            return Err(StorageError::InUse(SCRATCH.to_owned()));
        }
        if self.mounted {
            unmount_point(target).map_err(StorageError::io("unmounting the scratch"))?;
            self.mounted = false;
        }
        if let Some(crypt) = &mut self.crypt {
            crypt.remove()?;
        }
        if let Some(integrity) = &mut self.integrity {
            integrity.remove()?;
        }
        permit.commit();
        Ok(())
    }
}

/// Of a tmpfs in a guest of this much memory in bytes: half of it, so that a full scratch leaves room for the processes, and a
/// bounded number of inodes, as empty files take memory that the size does not count (tmpfs.rst).
fn memory_options(memory: u64) -> String {
    let bytes = memory / 2;
    format!("size={bytes},nr_inodes={},mode=0755", bytes / BYTES_PER_INODE)
}

/// Makes dm-integrity format the disk; returns the device and the number of sectors it provides. With `key` its tags are its own.
///
/// The host may put a superblock of its choice in the place of the zeros, before dm-integrity reads it. All it can choose so is where
/// blocks and tags lie: what is read is authenticated with a key that it does not have.
fn format_integrity(disk: &Disk, key: Option<&[u8; HMAC_KEY_BYTES]>) -> Result<(Mapped, u64), StorageError> {
    let capacity = disk.sectors().map_err(StorageError::io("reading the size of the scratch disk"))?;
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_SYNC)
        .open(disk.path())
        .and_then(|mut file| file.write_all(&[0; SUPERBLOCK_BYTES]))
        .map_err(StorageError::io("clearing the scratch disk"))?;
    let device = Mapped::create("scratch-integrity")?;
    load_integrity(&device, disk, PROBE_SECTORS, key)?;
    let status = device.status_of_loaded()?;
    let sectors =
        provided_sectors(&status, capacity).ok_or(StorageError::ScratchFormat("dm-integrity reports no size, or more than the disk's"))?;
    // dm-crypt needs a whole number of encryption units.
    let sectors = sectors - sectors % u64::from(SECTOR_BYTES / 512);
    load_integrity(&device, disk, sectors, key)?;
    device.activate()?;
    Ok((device, sectors))
}

/// `Documentation/admin-guide/device-mapper/dm-integrity.rst`: the status is mismatches, provided sectors, recalculation.
/// The number comes from a superblock that the host may have written, so it is less than the disk's own.
fn provided_sectors(status: &str, capacity: u64) -> Option<u64> {
    let sectors = status.split_whitespace().nth(1)?.parse().ok();
    sectors.filter(|&sectors| sectors > 0 && sectors < capacity)
}

fn load_integrity(device: &Mapped, disk: &Disk, sectors: u64, key: Option<&[u8; HMAC_KEY_BYTES]>) -> Result<(), StorageError> {
    let mut table = integrity_table(disk.number(), sectors, key);
    let loaded = device.load(&table);
    forget(&mut table);
    Ok(loaded?)
}

fn integrity_table(disk: DeviceNumber, sectors: u64, key: Option<&[u8; HMAC_KEY_BYTES]>) -> Table {
    // As in `crypt_table`.
    let mut parameters = String::with_capacity(2 * HMAC_KEY_BYTES + 256);
    let (tag, options) = if key.is_some() { (HMAC_BYTES, 5) } else { (TAG_BYTES, 3) };
    parameters.push_str(&format!(
        "{disk} 0 {tag} D {options} journal_sectors:1 block_size:{SECTOR_BYTES} fix_padding"
    ));
    if let Some(key) = key {
        parameters.push_str(" fix_hmac internal_hash:hmac(sha256):");
        push_hex(&mut parameters, key);
    }
    Table {
        sectors,
        kind: "integrity",
        parameters,
        read_only: false,
        secret: key.is_some(),
    }
}

fn push_hex(text: &mut String, key: &[u8]) {
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
}

/// Overwrites the text of a table that contained a key.
fn forget(table: &mut Table) {
    let mut text = std::mem::take(&mut table.parameters).into_bytes();
    text.fill(0);
    std::hint::black_box(&text);
}

fn open_crypt(integrity: DeviceNumber, sectors: u64) -> Result<Mapped, StorageError> {
    let mut key = [0; KEY_BYTES];
    crate::sys::random(&mut key).map_err(StorageError::io("creating the scratch key"))?;
    let mut table = crypt_table(integrity, sectors, &key);
    key.fill(0);
    let opened = Mapped::open("scratch", &table);
    forget(&mut table);
    Ok(opened?)
}

fn crypt_table(integrity: DeviceNumber, sectors: u64, key: &[u8; KEY_BYTES]) -> Table {
    // Allocated at its final size, so that no copy of the key is left in a smaller buffer.
    let mut parameters = String::with_capacity(2 * KEY_BYTES + 256);
    parameters.push_str("capi:authenc(hmac(sha256),xts(aes))-random ");
    push_hex(&mut parameters, key);
    parameters.push_str(&format!(" 0 {integrity} 0 2 integrity:{TAG_BYTES}:aead sector_size:{SECTOR_BYTES}"));
    Table {
        sectors,
        kind: "crypt",
        parameters,
        read_only: false,
        secret: true,
    }
}

fn make_file_system(device: &Path, bytes: u64) -> Result<(), StorageError> {
    let file = OpenOptions::new()
        .write(true)
        .open(device)
        .map_err(StorageError::io("opening the scratch device"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    layer::scratch::write_empty_ext4(&mut out, bytes).map_err(|_| StorageError::ScratchFormat("the empty ext4 cannot be written"))?;
    out.flush().map_err(StorageError::io("formatting the scratch disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_the_targets_document_them() {
        let number = DeviceNumber { major: 254, minor: 16 };
        let integrity = integrity_table(number, 8, None);
        assert_eq!(
            integrity.parameters,
            "254:16 0 48 D 3 journal_sectors:1 block_size:4096 fix_padding"
        );
        let keyed = integrity_table(number, 8, Some(&[0xa5; HMAC_KEY_BYTES]));
        let expected = format!(
            "254:16 0 32 D 5 journal_sectors:1 block_size:4096 fix_padding fix_hmac internal_hash:hmac(sha256):{}",
            "a5".repeat(32)
        );
        assert_eq!((keyed.parameters, keyed.secret), (expected, true));
        let crypt = crypt_table(number, 800, &[0xa5; KEY_BYTES]);
        let expected = format!(
            "capi:authenc(hmac(sha256),xts(aes))-random {} 0 254:16 0 2 integrity:48:aead sector_size:4096",
            "a5".repeat(96)
        );
        assert_eq!((crypt.parameters, crypt.sectors, crypt.secret), (expected, 800, true));
    }

    #[test]
    fn scratch_in_memory_is_half_of_it() {
        assert_eq!(memory_options(256 << 20), "size=134217728,nr_inodes=16384,mode=0755");
    }

    #[test]
    fn the_size_is_the_second_field_of_the_status() {
        assert_eq!(provided_sectors("0 4194304 -", 4_200_000), Some(4_194_304));
        assert_eq!(provided_sectors("0 4194304 -", 4_194_304), None, "there is no room for tags");
        for bad in ["", "0", "0 x -", "0 0 -"] {
            assert_eq!(provided_sectors(bad, 4_200_000), None);
        }
    }
}
