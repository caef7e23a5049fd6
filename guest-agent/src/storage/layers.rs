//! Read-only layers: an extent of the layer disk, or a file that the guest pulled, under dm-verity, mounted as ext4.

use std::collections::HashMap;

use agent_protocol::limits::LAYERS;
use layer::{BLOCK_BYTES, SALT};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use policy::{
    Permit,
    action::{MountDevice, UnmountDevice},
};

use super::{
    StorageError,
    device_mapper::{DeviceNumber, Mapped, Table},
    disk::Disk,
    layer_of,
    loop_device::LoopDevice,
};
use crate::{decode::Geometry, guest_dir::Directory, paths};

/// A mounted layer; fields are dropped from the top device down.
#[derive(Debug)]
struct Layer {
    /// Zeros for a device without dm-verity.
    root: [u8; 32],
    mounted: bool,
    verity: Mapped,
    image: Image,
    users: usize,
}

/// The block device under dm-verity.
#[derive(Debug)]
enum Image {
    /// An extent of the layer disk.
    Extent(Mapped),
    /// A file on the scratch.
    Pulled(LoopDevice),
}

impl Image {
    fn number(&self) -> DeviceNumber {
        match self {
            Self::Extent(device) => device.number(),
            Self::Pulled(device) => device.number(),
        }
    }

    /// Removes the device. May be repeated.
    fn remove(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Extent(device) => Ok(device.remove()?),
            Self::Pulled(device) => device.detach().map_err(StorageError::io("detaching a pulled layer")),
        }
    }
}

/// The layers by slot.
#[derive(Debug, Default)]
pub struct Layers {
    by_slot: HashMap<u32, Layer>,
}

impl Layers {
    /// Opens the device with the root hash of the permit and mounts it.
    pub fn mount(&mut self, permit: Permit<'_, MountDevice>, slot: u32, disk: &Disk, geometry: Geometry) -> Result<(), StorageError> {
        self.check_room(slot)?;
        let available = disk.sectors().map_err(StorageError::io("reading the size of the layer disk"))?;
        if geometry.end_sector() > available {
            return Err(StorageError::BeyondDisk {
                end: geometry.end_sector(),
                available,
            });
        }
        let linear = Mapped::open(&format!("layer-{slot}-image"), &linear_table(disk.number(), &geometry))?;
        self.open(permit, slot, Image::Extent(linear), geometry)
    }

    /// The same with a layer that the guest pulled. Its root hash is the puller's word until dm-verity has compared it with each block.
    pub fn mount_pulled(&mut self, permit: Permit<'_, MountDevice>, slot: u32, layer: &guest_images::Layer) -> Result<(), StorageError> {
        self.check_room(slot)?;
        let geometry = Geometry::new(0, layer.data_blocks, layer.total_blocks).map_err(|_| StorageError::NotPulled)?;
        let device = LoopDevice::attach(&layer.file).map_err(StorageError::io("attaching a pulled layer"))?;
        self.open(permit, slot, Image::Pulled(device), geometry)
    }

    fn check_room(&self, slot: u32) -> Result<(), StorageError> {
        match self.by_slot.len() {
            _ if self.by_slot.contains_key(&slot) => Err(StorageError::Occupied(layer_of(slot))),
            LAYERS.. => Err(StorageError::TooMany("layers")),
            _ => Ok(()),
        }
    }

    fn open(&mut self, permit: Permit<'_, MountDevice>, slot: u32, mut image: Image, geometry: Geometry) -> Result<(), StorageError> {
        let root_hash = permit.action().device_hash.as_str();
        let verity = Mapped::open(&format!("layer-{slot}"), &verity_table(image.number(), &geometry, root_hash));
        let mut verity = undone_unless(verity, || image.remove())?;
        let mounted = mount_device(&verity, &permit.action().target);
        undone_unless(mounted, || {
            verity.remove()?;
            image.remove()
        })?;
        self.by_slot.insert(
            slot,
            Layer {
                root: permit.action().device_hash.bytes().unwrap_or_default(),
                mounted: true,
                verity,
                image,
                users: 0,
            },
        );
        permit.commit();
        Ok(())
    }

    /// Unmounts a layer and removes its devices; after that the extent on the disk may be reused.
    pub fn unmount(&mut self, permit: Permit<'_, UnmountDevice>, slot: u32) -> Result<(), StorageError> {
        let target = permit.action().unmount_target.clone();
        let layer = self.by_slot.get_mut(&slot).ok_or_else(|| StorageError::Absent(layer_of(slot)))?;
        if layer.users > 0 {
            return Err(StorageError::InUse(layer_of(slot)));
        }
        if layer.mounted {
            umount2(target.as_str(), MntFlags::UMOUNT_NOFOLLOW).map_err(StorageError::io("unmounting a layer"))?;
            layer.mounted = false;
        }
        // If a step fails, the next call repeats it: the entry stays until everything is removed.
        layer.verity.remove()?;
        layer.image.remove()?;
        self.by_slot.remove(&slot);
        permit.commit();
        Ok(())
    }

    /// Whether a layer is in a file of the scratch.
    pub fn use_scratch(&self) -> bool {
        self.by_slot.values().any(|layer| matches!(layer.image, Image::Pulled(_)))
    }

    /// Mount points of `slots` and the root hashes that they were opened with, in the same order.
    pub fn mounted(&self, slots: &[u32]) -> Result<(Vec<String>, Vec<[u8; 32]>), StorageError> {
        slots
            .iter()
            .map(|slot| {
                let target = paths::layer(*slot);
                match self.by_slot.get(slot) {
                    Some(layer) if layer.mounted => Ok((target, layer.root)),
                    _ => Err(StorageError::Absent(layer_of(*slot))),
                }
            })
            .collect()
    }

    /// Counts an overlay that uses the layers.
    pub fn hold(&mut self, slots: &[u32]) {
        for slot in slots {
            if let Some(layer) = self.by_slot.get_mut(slot) {
                layer.users += 1;
            }
        }
    }

    /// Undoes [`Self::hold`].
    pub fn release(&mut self, slots: &[u32]) {
        for slot in slots {
            if let Some(layer) = self.by_slot.get_mut(slot) {
                layer.users = layer.users.saturating_sub(1);
            }
        }
    }
}

fn mount_device(device: &Mapped, target: &str) -> Result<(), StorageError> {
    let point = Directory::make(target).map_err(StorageError::io("creating a layer's mount point"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some(&device.path()), point.path().as_str(), Some("ext4"), flags, Some("noload")).map_err(StorageError::io("mounting a layer"))
}

/// Undoes what came before a failed step. The step's error is reported, unless something remains.
fn undone_unless<T, E: Into<StorageError>>(step: Result<T, E>, undo: impl FnOnce() -> Result<(), StorageError>) -> Result<T, StorageError> {
    step.map_err(|error| undo().map_or_else(|_| StorageError::NotUndone, |()| error.into()))
}

fn linear_table(disk: DeviceNumber, geometry: &Geometry) -> Table {
    Table {
        sectors: geometry.sectors(),
        kind: "linear",
        parameters: format!("{disk} {}", geometry.first_sector()),
        read_only: true,
        secret: false,
    }
}

/// Everything except the root hash and the sizes is fixed here and never read from the host's disk.
fn verity_table(image: DeviceNumber, geometry: &Geometry, root_hash: &str) -> Table {
    let (data_blocks, tree) = (geometry.data_blocks(), geometry.data_blocks() + 1);
    let salt = hex::encode(SALT);
    Table {
        sectors: geometry.data_sectors(),
        kind: "verity",
        parameters: format!("1 {image} {image} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} {tree} sha256 {root_hash} {salt}"),
        read_only: true,
        secret: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fix_what_the_host_must_not_choose() {
        let geometry = Geometry::new(4096, 523, 530).unwrap();
        let disk = DeviceNumber { major: 254, minor: 0 };
        let linear = linear_table(disk, &geometry);
        assert_eq!(
            (linear.sectors, linear.parameters.as_str(), linear.read_only),
            (4240, "254:0 4096", true)
        );
        let verity = verity_table(DeviceNumber { major: 253, minor: 1 }, &geometry, &"ab".repeat(32));
        assert_eq!(verity.sectors, 4184);
        let expected = format!("1 253:1 253:1 4096 4096 523 524 sha256 {} {}", "ab".repeat(32), "0".repeat(64));
        assert_eq!(verity.parameters, expected);
        assert_eq!(geometry.end_sector(), 4096 + 4240);
    }
}
