//! Device-mapper ioctls (`include/uapi/linux/dm-ioctl.h`): create, load a table, resume, status, remove.

#![expect(unsafe_code, reason = "the ioctls of device-mapper have no wrapper")]

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
};

use nix::{errno::Errno, libc};

const CONTROL: &str = "/dev/mapper/control";
/// `struct dm_ioctl` up to `data`, in bytes.
const HEADER_BYTES: usize = 312;
/// `struct dm_target_spec` in bytes.
const TARGET_BYTES: usize = 40;
/// Buffer size for an answer; ours are one line.
const BUFFER_BYTES: usize = 4096;
/// Interface version used; any 4.x kernel accepts it.
const VERSION: [u32; 3] = [4, 0, 0];
/// `DM_NAME_LEN`, including its NUL.
const NAME_BYTES: usize = 128;
/// `DM_MAX_TYPE_NAME`, including its NUL.
const KIND_BYTES: usize = 16;

const READONLY: u32 = 1 << 0;
const QUERY_INACTIVE_TABLE: u32 = 1 << 12;
/// The kernel wipes its copy of the buffer, because it contains a key.
const SECURE_DATA: u32 = 1 << 15;

/// Offsets in `struct dm_ioctl`.
mod at {
    pub const DATA_SIZE: usize = 12;
    pub const DATA_START: usize = 16;
    pub const TARGET_COUNT: usize = 20;
    pub const FLAGS: usize = 28;
    pub const DEV: usize = 40;
    pub const NAME: usize = 48;
}

/// The commands used, `_IOWR(0xfd, n, struct dm_ioctl)`.
#[derive(Clone, Copy, Debug)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Also resumes.
    Suspend = 6,
    LoadTable = 9,
    TableStatus = 12,
}

/// An ioctl failed; the kernel's log has the target's own message.
#[derive(Debug, thiserror::Error)]
#[error("device-mapper {command} of {name}")]
pub struct MapperError {
    command: &'static str,
    name: String,
    #[source]
    cause: io::Error,
}

/// One line of a table that covers the whole device.
pub struct Table {
    /// Length in 512-byte sectors.
    pub sectors: u64,
    /// Target type.
    pub kind: &'static str,
    /// The target's parameters, its documentation under `Documentation/admin-guide/device-mapper/`.
    pub parameters: String,
    /// The device refuses writes.
    pub read_only: bool,
    /// The parameters hold a key.
    pub secret: bool,
}

/// Device number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// As in tables and sysfs.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A device-mapper device; it is removed on drop unless it was removed before.
#[derive(Debug)]
pub struct Mapped {
    name: String,
    number: DeviceNumber,
    present: bool,
}

impl Mapped {
    /// Creates the device, loads its table and activates it.
    pub fn open(name: &str, table: &Table) -> Result<Self, MapperError> {
        let device = Self::create(name)?;
        device.load(table)?;
        device.activate()?;
        Ok(device)
    }

    /// Creates the device without a table.
    pub fn create(name: &str) -> Result<Self, MapperError> {
        let answer = call(Command::Create, "create", name, 0, None)?;
        Ok(Self {
            name: name.to_owned(),
            number: device_number(u64_at(&answer, at::DEV)),
            present: true,
        })
    }

    /// Loads a table; it takes effect with [`Self::activate`].
    pub fn load(&self, table: &Table) -> Result<(), MapperError> {
        let flags = if table.read_only { READONLY } else { 0 } | if table.secret { SECURE_DATA } else { 0 };
        call(Command::LoadTable, "table load", &self.name, flags, Some(table)).map(drop)
    }

    /// Activates the loaded table.
    pub fn activate(&self) -> Result<(), MapperError> {
        call(Command::Suspend, "resume", &self.name, 0, None).map(drop)
    }

    /// The status line of the loaded table, which is not active yet.
    pub fn status_of_loaded(&self) -> Result<String, MapperError> {
        let answer = call(Command::TableStatus, "status", &self.name, QUERY_INACTIVE_TABLE, None)?;
        let text = answer.get(HEADER_BYTES + TARGET_BYTES..).unwrap_or_default();
        Ok(until_nul(text))
    }

    /// Removes the device, which must not be open.
    pub fn remove(&mut self) -> Result<(), MapperError> {
        if self.present {
            match call(Command::Remove, "remove", &self.name, 0, None) {
                // It does not exist, which is what the caller wants.
                Err(error) if error.cause.raw_os_error() != Some(Errno::ENXIO as i32) => return Err(error),
                _ => self.present = false,
            }
        }
        Ok(())
    }

    /// Its number, for tables of devices above it.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Its node.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.number.minor))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Only after a failed set-up, whose error is reported.
        let _ = self.remove();
    }
}

/// `huge_encode_dev` of the kernel.
fn device_number(encoded: u64) -> DeviceNumber {
    let major = (encoded & 0xfff00) >> 8;
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
    DeviceNumber {
        major: major as u32,
        minor: minor as u32,
    }
}

fn call(command: Command, verb: &'static str, name: &str, flags: u32, table: Option<&Table>) -> Result<Vec<u8>, MapperError> {
    let failed = |cause| MapperError {
        command: verb,
        name: name.to_owned(),
        cause,
    };
    let mut buffer = request(name, flags, table).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(failed)?;
    let result = ioctl(&control, command, &mut buffer).map_err(failed);
    if table.is_some_and(|table| table.secret) {
        buffer.fill(0);
    }
    result.map(|()| buffer)
}

/// The buffer of a command; `None` if a name or the parameters do not fit.
fn request(name: &str, flags: u32, table: Option<&Table>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    for (n, part) in VERSION.iter().enumerate() {
        put_u32(&mut buffer, n * 4, *part);
    }
    put_u32(&mut buffer, at::DATA_SIZE, BUFFER_BYTES as u32);
    put_u32(&mut buffer, at::DATA_START, HEADER_BYTES as u32);
    put_u32(&mut buffer, at::FLAGS, flags);
    put_text(&mut buffer, at::NAME, name, NAME_BYTES)?;
    if let Some(Table {
        sectors, kind, parameters, ..
    }) = table
    {
        put_u32(&mut buffer, at::TARGET_COUNT, 1);
        buffer[HEADER_BYTES + 8..HEADER_BYTES + 16].copy_from_slice(&sectors.to_le_bytes());
        let parameters_at = HEADER_BYTES + TARGET_BYTES;
        put_u32(&mut buffer, HEADER_BYTES + 20, (BUFFER_BYTES - HEADER_BYTES) as u32);
        put_text(&mut buffer, HEADER_BYTES + 24, kind, KIND_BYTES)?;
        put_text(&mut buffer, parameters_at, parameters, BUFFER_BYTES - parameters_at)?;
    }
    Some(buffer)
}

fn put_u32(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes `text` and leaves at least one NUL of `room` after it.
fn put_text(buffer: &mut [u8], at: usize, text: &str, room: usize) -> Option<()> {
    if text.len() >= room || text.bytes().any(|b| b == 0) {
        return None;
    }
    buffer[at..at + text.len()].copy_from_slice(text.as_bytes());
    Some(())
}

fn u64_at(buffer: &[u8], at: usize) -> u64 {
    buffer.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn until_nul(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&b| b == 0).next().unwrap_or_default()).into_owned()
}

fn ioctl(control: &File, command: Command, buffer: &mut [u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let number = nix::request_code_readwrite!(0xfd, command as u8, HEADER_BYTES);
    // SAFETY: data_size in the buffer's header is the buffer's length, so the kernel reads and writes only inside it;
    // it lives for the call and nothing else refers to it.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), number, buffer.as_mut_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let table = Table {
            sectors: 0x0102_0304,
            kind: "linear",
            parameters: "254:0 8".to_owned(),
            read_only: true,
            secret: false,
        };
        let buffer = request("layer-0", READONLY, Some(&table)).unwrap();
        assert_eq!(&buffer[..20], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0x38, 1, 0, 0]);
        assert_eq!((buffer[20], buffer[28]), (1, 1));
        assert_eq!(&buffer[48..56], b"layer-0\0");
        // The target: start 0, length, status 0, next, type, then the parameters.
        assert_eq!(&buffer[312..328], [0, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(&buffer[336..343], b"linear\0");
        assert_eq!(&buffer[352..360], b"254:0 8\0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(request(&"n".repeat(NAME_BYTES), 0, None).is_none());
        assert!(request("a\0b", 0, None).is_none());
        let table = |parameters| Table {
            sectors: 8,
            kind: "linear",
            parameters,
            read_only: false,
            secret: false,
        };
        assert!(request("n", 0, Some(&table("p".repeat(BUFFER_BYTES)))).is_none());
        assert!(request("n", 0, Some(&table("p".repeat(3000)))).is_some());
    }

    #[test]
    fn device_numbers_are_decoded() {
        assert_eq!(device_number(0xfd03).to_string(), "253:3");
        assert_eq!(device_number(0x0010_fd03), DeviceNumber { major: 253, minor: 0x103 });
    }
}
