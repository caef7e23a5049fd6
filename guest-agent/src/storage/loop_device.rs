//! Loop devices (`include/uapi/linux/loop.h`): a file of the scratch as a read-only block device.

#![expect(unsafe_code, reason = "the ioctls of loop devices have no wrapper")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::fs::MetadataExt,
    },
};

use nix::{errno::Errno, libc};

use super::device_mapper::DeviceNumber;

const CONTROL: &str = "/dev/loop-control";
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
/// Read-only; detached with its last user; reads past the page cache, where the file system of the file can.
const FLAGS: u32 = 1 | 4 | 16;
/// Attempts to get a device that is free: a privileged container may take one in between.
const ATTEMPTS: usize = 8;

/// `struct loop_config`, with `struct loop_info64` inside, by the offsets of what is not zero.
struct Config([u8; Self::BYTES]);

impl Config {
    const BYTES: usize = 304;
    const FD: usize = 0;
    const BLOCK_SIZE: usize = 4;
    /// `loop_info64` begins at 8; five numbers of 64 bits and three of 32 come before.
    const FLAGS: usize = 8 + 5 * 8 + 3 * 4;

    fn new(file: &File) -> Self {
        let mut config = Self([0; Self::BYTES]);
        config.set(Self::FD, file.as_raw_fd() as u32);
        config.set(Self::BLOCK_SIZE, layer::BLOCK_BYTES as u32);
        config.set(Self::FLAGS, FLAGS);
        config
    }

    fn set(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
}

/// A loop device; it is detached on drop once nothing uses it.
#[derive(Debug)]
pub struct LoopDevice {
    number: DeviceNumber,
    device: Option<OwnedFd>,
}

impl LoopDevice {
    /// Attaches a file whose length is a whole number of blocks of 4 KiB. The device keeps the file.
    pub fn attach(file: &File) -> io::Result<Self> {
        let control = File::open(CONTROL)?;
        for _ in 0..ATTEMPTS {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory.
            let free = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
            let device = OpenOptions::new().read(true).open(format!("/dev/loop{free}"))?;
            let config = Config::new(file);
            // SAFETY: LOOP_CONFIGURE reads a `loop_config`, whose size the array has, and which lives for the call.
            let configured = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.0.as_ptr()) });
            match configured {
                Ok(_) => {
                    let number = device.metadata()?.st_rdev();
                    return Ok(Self {
                        number: DeviceNumber {
                            major: libc::major(number),
                            minor: libc::minor(number),
                        },
                        device: Some(device.into()),
                    });
                }
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// Its number, for device-mapper tables.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Detaches the file. May be repeated.
    pub fn detach(&mut self) -> io::Result<()> {
        if let Some(device) = &self.device {
            // SAFETY: LOOP_CLR_FD takes no argument and touches no memory.
            match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) }) {
                Ok(_) | Err(Errno::ENXIO) => {}
                Err(error) => return Err(error.into()),
            }
            self.device = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::fs::FileExt};

    #[test]
    fn a_file_without_a_name_is_a_read_only_disk() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 3 * layer::BLOCK_BYTES]).unwrap();
        let mut device = match LoopDevice::attach(&file) {
            Ok(device) => device,
            Err(error) => return println!("skipped: a_file_without_a_name_is_a_read_only_disk: no loop device: {error}"),
        };
        drop(file);
        assert_eq!(device.number().major, 7);
        let path = format!("/dev/loop{}", device.number().minor);
        let disk = File::open(&path).unwrap();
        let mut block = [0; layer::BLOCK_BYTES];
        disk.read_exact_at(&mut block, 2 * layer::BLOCK_BYTES as u64).unwrap();
        assert_eq!(block, [7; layer::BLOCK_BYTES]);
        assert!(disk.read_exact_at(&mut block, 3 * layer::BLOCK_BYTES as u64).is_err());
        assert!(
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|disk| disk.write_all_at(&block, 0))
                .is_err()
        );
        drop(disk);
        device.detach().unwrap();
        device.detach().unwrap();
    }
}
