//! The VM's virtio disks, found by the slot in which the VMM put them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::device_mapper::DeviceNumber;

/// Interval at which a disk that is about to grow is checked.
const POLL: Duration = Duration::from_millis(1);
const SYS_BLOCK: &str = "/sys/block";

/// One of the VM's fixed disks; the number is the virtio-mmio slot, `_UID` of its ACPI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The growable read-only layer disk.
    Layers = 0,
    /// The scratch disk.
    Scratch = 1,
}

/// A block device.
#[derive(Clone, Debug)]
pub struct Disk {
    name: String,
    number: DeviceNumber,
    sys: PathBuf,
}

impl Disk {
    /// The disk in `slot`; `None` if the VM has none there.
    pub fn find(slot: Slot) -> io::Result<Option<Self>> {
        Self::find_under(Path::new(SYS_BLOCK), slot)
    }

    fn find_under(sys_block: &Path, slot: Slot) -> io::Result<Option<Self>> {
        for entry in fs::read_dir(sys_block)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // `device` is the virtio device; its parent is the slot's platform device.
            let uid = entry.path().join("device/../firmware_node/uid");
            if name.starts_with("vd") && read_number(&uid) == Some(slot as u64) {
                return Self::at(name, entry.path()).map(Some);
            }
        }
        Ok(None)
    }

    /// The disk with this serial number (`VIRTIO_BLK_T_GET_ID`); `None` if the VM has none.
    pub fn with_serial(serial: &str) -> io::Result<Option<Self>> {
        Self::with_serial_under(Path::new(SYS_BLOCK), serial)
    }

    fn with_serial_under(sys_block: &Path, serial: &str) -> io::Result<Option<Self>> {
        for entry in fs::read_dir(sys_block)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let found = fs::read_to_string(entry.path().join("serial"));
            if name.starts_with("vd") && found.is_ok_and(|found| found.trim_end() == serial) {
                return Self::at(name, entry.path()).map(Some);
            }
        }
        Ok(None)
    }

    fn at(name: String, sys: PathBuf) -> io::Result<Self> {
        let number = fs::read_to_string(sys.join("dev"))?;
        let number = parse_number(&number).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { name, number, sys })
    }

    /// Its number, for device-mapper tables.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Its node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Current size in 512-byte sectors.
    pub fn sectors(&self) -> io::Result<u64> {
        read_number(&self.sys.join("size")).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits until the disk has at least `sectors`; returns its last size if it has not grown in time.
    pub async fn grown_to(&self, sectors: u64, within: Duration) -> io::Result<Result<(), u64>> {
        let deadline = Instant::now() + within;
        loop {
            let now = self.sectors()?;
            if now >= sectors {
                return Ok(Ok(()));
            }
            if Instant::now() >= deadline {
                return Ok(Err(now));
            }
            sleep(POLL).await;
        }
    }
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs tree with disks: name, ACPI _UID and sectors.
    fn sysfs(disks: &[(&str, u64, u64)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (n, (name, uid, sectors)) in disks.iter().enumerate() {
            let platform = root.path().join(format!("devices/LNRO0005:0{n}"));
            let virtio = platform.join(format!("virtio{n}"));
            fs::create_dir_all(&virtio).unwrap();
            fs::create_dir_all(platform.join("firmware_node")).unwrap();
            fs::write(platform.join("firmware_node/uid"), format!("{uid}\n")).unwrap();
            let block = root.path().join("block").join(name);
            fs::create_dir_all(&block).unwrap();
            fs::write(block.join("dev"), format!("254:{}\n", n * 16)).unwrap();
            fs::write(block.join("size"), format!("{sectors}\n")).unwrap();
            symlink(&virtio, block.join("device")).unwrap();
        }
        root
    }

    #[test]
    fn a_disk_is_found_by_its_slot_not_by_its_name() {
        let root = sysfs(&[("vda", 1, 80), ("vdb", 0, 16), ("dm-0", 0, 8)]);
        let block = root.path().join("block");
        let layers = Disk::find_under(&block, Slot::Layers).unwrap().unwrap();
        assert_eq!(layers.path(), Path::new("/dev/vdb"));
        assert_eq!((layers.number().to_string(), layers.sectors().unwrap()), ("254:16".to_owned(), 16));
        assert_eq!(
            Disk::find_under(&block, Slot::Scratch).unwrap().unwrap().path(),
            Path::new("/dev/vda")
        );
        let root = sysfs(&[("vda", 1, 80)]);
        assert!(Disk::find_under(&root.path().join("block"), Slot::Layers).unwrap().is_none());
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number() {
        let root = sysfs(&[("vda", 1, 80), ("vdb", 4, 16), ("dm-0", 0, 8)]);
        let block = root.path().join("block");
        let find = || Disk::with_serial_under(&block, "imagepuller").unwrap().map(|disk| disk.path());
        assert_eq!(find(), None);
        fs::write(block.join("vda/serial"), "casemate-scratch").unwrap();
        fs::write(block.join("dm-0/serial"), "imagepuller").unwrap();
        assert_eq!(find(), None);
        fs::write(block.join("vdb/serial"), "imagepuller\n").unwrap();
        assert_eq!(find().unwrap(), Path::new("/dev/vdb"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_growth_is_bounded() {
        let root = sysfs(&[("vda", 0, 8)]);
        let disk = Disk::find_under(&root.path().join("block"), Slot::Layers).unwrap().unwrap();
        assert_eq!(disk.grown_to(8, Duration::ZERO).await.unwrap(), Ok(()));
        assert_eq!(disk.grown_to(16, Duration::from_secs(1)).await.unwrap(), Err(8));
        let grower = tokio::spawn({
            let size = root.path().join("block/vda/size");
            async move {
                sleep(Duration::from_millis(100)).await;
                fs::write(size, "16\n").unwrap();
            }
        });
        assert_eq!(disk.grown_to(16, Duration::from_secs(1)).await.unwrap(), Ok(()));
        grower.await.unwrap();
    }
}
