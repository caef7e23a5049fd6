//! Read-only layers: an extent of the layer disk under dm-verity, mounted as ext4.

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
    device_mapper::{DeviceNumber, Mapped, MapperError, Table},
    disk::Disk,
    layer_of,
};
use crate::{decode::Geometry, guest_dir::Directory, paths};

/// A mounted layer; fields are dropped from the top device down.
#[derive(Debug)]
struct Layer {
    /// Zeros for a device without dm-verity.
    root: [u8; 32],
    mounted: bool,
    verity: Mapped,
    linear: Mapped,
    users: usize,
}

/// The layers by slot.
#[derive(Debug, Default)]
pub struct Layers {
    by_slot: HashMap<u32, Layer>,
}

impl Layers {
    /// Opens the device with the root hash of the permit and mounts it.
    pub fn mount(&mut self, permit: Permit<'_, MountDevice>, slot: u32, disk: &Disk, geometry: Geometry) -> Result<(), StorageError> {
        let target = permit.action().target.clone();
        if self.by_slot.contains_key(&slot) {
            return Err(StorageError::Occupied(layer_of(slot)));
        }
        if self.by_slot.len() == LAYERS {
            return Err(StorageError::TooMany("layers"));
        }
        let available = disk.sectors().map_err(StorageError::io("reading the size of the layer disk"))?;
        if geometry.end_sector() > available {
            return Err(StorageError::BeyondDisk {
                end: geometry.end_sector(),
                available,
            });
        }
        let mut linear = Mapped::open(&format!("layer-{slot}-image"), &linear_table(disk.number(), &geometry))?;
        let root_hash = permit.action().device_hash.as_str();
        let verity = Mapped::open(&format!("layer-{slot}"), &verity_table(linear.number(), &geometry, root_hash));
        let mut verity = undone_unless(verity, [&mut linear])?;
        let mounted = mount_device(&verity, &target);
        undone_unless(mounted, [&mut verity, &mut linear])?;
        self.by_slot.insert(
            slot,
            Layer {
                root: permit.action().device_hash.bytes().unwrap_or_default(),
                mounted: true,
                verity,
                linear,
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
        layer.linear.remove()?;
        self.by_slot.remove(&slot);
        permit.commit();
        Ok(())
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

/// Removes the devices of a failed step, the upper one first. The step's error is reported, unless a device remains.
fn undone_unless<T, E: Into<StorageError>, const N: usize>(step: Result<T, E>, devices: [&mut Mapped; N]) -> Result<T, StorageError> {
    step.map_err(|error| {
        let removed = devices.into_iter().try_for_each(Mapped::remove);
        removed.map_or_else(|_: MapperError| StorageError::NotUndone, |()| error.into())
    })
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
