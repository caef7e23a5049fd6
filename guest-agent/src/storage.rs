//! Disks, layers, scratch and root file systems: what is mounted for containers.

pub mod device_mapper;
pub mod disk;
pub mod layers;
mod loop_device;
mod overlay;
pub mod pulls;
mod scratch;
pub mod unsupported;

use std::io;

use permit_log::{Entry, Full};
use policy::{
    ContainerId, Denied, Permit,
    action::{
        Medium, MountDevice, MountOverlay, PullImage, RwMountDevice, RwUnmountDevice, ScratchMount, ScratchUnmount, UnmountDevice,
        UnmountOverlay,
    },
};

use crate::{
    decode::Geometry,
    judge::{self, Judge, Refusal},
    paths,
};
use device_mapper::MapperError;
use disk::{Disk, Slot};
use guest_images::{PulledLayer, Staging, Store, StoreError};
use layers::Layers;
use overlay::Overlays;
use pulls::Begun;
use scratch::Scratch;

/// Why a mount or unmount failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The mount point is taken.
    #[error("{0} is mounted already")]
    Occupied(String),
    /// Nothing is mounted there.
    #[error("nothing is mounted at {0}")]
    Absent(String),
    /// Something mounted uses it.
    #[error("{0} is in use")]
    InUse(String),
    /// A limit is reached.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// The scratch must be mounted first.
    #[error("the scratch of the sandbox is not mounted")]
    NoScratch,
    /// The VM was started without this disk.
    #[error("the VM has no disk for {0}")]
    NoDisk(&'static str),
    /// The kernel has no 9p, so no host directory can be shared.
    #[error("the guest has no 9p and shares no directory of the host: put the files into the image, or write them from inside")]
    NoShares,
    /// The announced layer is not on the disk, even after waiting.
    #[error("the layer ends at sector {end}, and the layer disk has {available}")]
    BeyondDisk {
        /// First sector after the layer.
        end: u64,
        /// Sectors that the disk has.
        available: u64,
    },
    /// No layer with this root hash was pulled.
    #[error("the guest has pulled no layer with this root hash")]
    NotPulled,
    /// The pulled layers cannot be kept.
    #[error(transparent)]
    Pulled(#[from] StoreError),
    /// A step failed, and the steps before it could not be undone.
    #[error("a request failed, and what it had done could not be undone")]
    NotUndone,
    /// Device-mapper refused.
    #[error("a block device cannot be set up")]
    Mapper(#[from] MapperError),
    /// The scratch disk could not be formatted.
    #[error("the scratch disk cannot be formatted: {0}")]
    ScratchFormat(&'static str),
    /// A system call failed.
    #[error("{step} failed")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// The system call's error.
        #[source]
        cause: io::Error,
    },
}

impl StorageError {
    fn io<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::Io { step, cause: cause.into() }
    }
}

/// How errors name a layer: by the host's own slot number.
fn layer_of(slot: u32) -> String {
    format!("layer {slot}")
}

/// How errors name a root file system: by the host's own id.
pub fn rootfs_of(container: &ContainerId) -> String {
    format!("the root file system of container \"{container}\"")
}

/// How errors name the scratch.
const SCRATCH: &str = "the scratch";

/// Everything that is mounted for containers.
#[derive(Debug, Default)]
pub struct Storage {
    layers: Layers,
    scratch: Option<Scratch>,
    overlays: Overlays,
    pulled: Store,
}

/// The layer disk, which every VM that runs containers has.
pub fn layer_disk() -> Result<Disk, StorageError> {
    find(Slot::Layers, "layers")
}

fn find(slot: Slot, what: &'static str) -> Result<Disk, StorageError> {
    Disk::find(slot)
        .map_err(StorageError::io("looking for a disk"))?
        .ok_or(StorageError::NoDisk(what))
}

impl Storage {
    /// Opens and mounts a layer.
    pub fn mount_layer(&mut self, permit: Permit<'_, MountDevice>, slot: u32, disk: &Disk, geometry: Geometry) -> Result<(), StorageError> {
        self.layers.mount(permit, slot, disk, geometry)
    }

    /// Makes files for the layers of an image on the scratch of the sandbox. They vanish unless [`Self::keep_pulled`] gets them.
    pub fn begin_pull(&self, permit: Permit<'_, PullImage>, sandbox: &ContainerId) -> Result<Begun, StorageError> {
        match &self.scratch {
            Some(scratch) if scratch.sandbox == *sandbox => Begun::new(permit, &self.pulled, &paths::container(sandbox)),
            _ => Err(StorageError::NoScratch),
        }
    }

    /// Takes pulled layers; their root hashes, bottom layer first.
    pub fn keep_pulled(&mut self, staging: Staging, layers: &[PulledLayer]) -> Result<Vec<[u8; 32]>, StorageError> {
        let roots = self.pulled.keep(staging, layers)?;
        Ok(roots.into_iter().map(|root| root.0).collect())
    }

    /// Opens and mounts the pulled layer that has the permit's root hash.
    pub fn mount_pulled(&mut self, permit: Permit<'_, MountDevice>, slot: u32) -> Result<(), StorageError> {
        let root = permit.action().device_hash.bytes().map(layer::RootHash);
        let layer = root.and_then(|root| self.pulled.by_root(&root)).ok_or(StorageError::NotPulled)?;
        self.layers.mount_pulled(permit, slot, &layer)
    }

    /// Unmounts a layer.
    pub fn unmount_layer(&mut self, permit: Permit<'_, UnmountDevice>, slot: u32) -> Result<(), StorageError> {
        self.layers.unmount(permit, slot)
    }

    /// Formats and mounts the scratch disk, or mounts scratch in memory, as the permit says.
    pub fn mount_scratch(&mut self, permit: Permit<'_, RwMountDevice>, sandbox: ContainerId) -> Result<(), StorageError> {
        if self.scratch.is_some() {
            return Err(StorageError::Occupied(SCRATCH.to_owned()));
        }
        self.scratch = Some(match permit.action().medium {
            Medium::Disk => Scratch::on_disk(permit, sandbox, &find(Slot::Scratch, "scratch")?)?,
            Medium::Memory => Scratch::in_memory(permit, sandbox)?,
        });
        Ok(())
    }

    /// Unmounts the scratch.
    pub fn unmount_scratch(&mut self, permit: Permit<'_, RwUnmountDevice>, sandbox: &ContainerId) -> Result<(), StorageError> {
        match &mut self.scratch {
            Some(scratch) if scratch.sandbox == *sandbox && self.layers.use_scratch() => {
                drop(permit);
                return Err(StorageError::InUse(SCRATCH.to_owned()));
            }
            Some(scratch) if scratch.sandbox == *sandbox => {
                // Their files would keep it mounted.
                self.pulled.clear();
                scratch.unmount(permit)?;
            }
            _ => return Err(StorageError::Absent(SCRATCH.to_owned())),
        }
        self.scratch = None;
        Ok(())
    }

    /// The action that the policy judges for a container's upper directory.
    pub fn upper(&self, sandbox: &ContainerId, container: &ContainerId) -> Result<ScratchMount, StorageError> {
        match &self.scratch {
            Some(scratch) if scratch.sandbox == *sandbox => Ok(ScratchMount {
                target: paths::scratch(sandbox, container),
                encrypted: scratch.encrypted,
            }),
            _ => Err(StorageError::NoScratch),
        }
    }

    /// Paths and root hashes of mounted layers.
    pub fn mounted_layers(&self, slots: &[u32]) -> Result<(Vec<String>, Vec<[u8; 32]>), StorageError> {
        self.layers.mounted(slots)
    }

    /// Creates a container's upper directory.
    pub fn make_upper(&mut self, permit: Permit<'_, ScratchMount>) -> Result<(), StorageError> {
        overlay::make_upper(permit)
    }

    /// Removes a container's upper directory.
    pub fn remove_upper(&mut self, permit: Permit<'_, ScratchUnmount>) -> Result<(), StorageError> {
        overlay::remove_upper(&permit.action().unmount_target)?;
        permit.commit();
        Ok(())
    }

    /// Mounts a container's root file system.
    pub fn mount_overlay(&mut self, permit: Permit<'_, MountOverlay>, slots: Vec<u32>, scratch: String) -> Result<(), StorageError> {
        self.overlays.mount(permit, slots.clone(), scratch)?;
        self.layers.hold(&slots);
        if let Some(scratch) = &mut self.scratch {
            scratch.users += 1;
        }
        Ok(())
    }

    /// Unmounts a container's root file system; its scratch directory remains until it is removed.
    pub fn unmount_overlay(&mut self, permit: Permit<'_, UnmountOverlay>, id: &ContainerId) -> Result<String, StorageError> {
        let overlay = self.overlays.unmount(permit, id)?;
        self.layers.release(&overlay.slots);
        if let Some(scratch) = &mut self.scratch {
            scratch.users = scratch.users.saturating_sub(1);
        }
        Ok(overlay.scratch)
    }

    /// Whether the scratch is that sandbox's: a guest has one at a time.
    pub fn is_of(&self, sandbox: &ContainerId) -> bool {
        self.scratch.as_ref().is_some_and(|scratch| scratch.sandbox == *sandbox)
    }

    /// Whether the container's root file system is the guest's own.
    pub fn has_own_rootfs(&self, id: &ContainerId) -> bool {
        self.overlays.is_own(id)
    }

    /// Whether the container has its root file system, on the scratch of that sandbox.
    ///
    /// The other containers share the namespaces of the sandbox's first container, so no later request may name another sandbox.
    pub fn has_rootfs(&self, id: &ContainerId, sandbox: &ContainerId) -> bool {
        self.overlays.contains(id) && self.is_of(sandbox)
    }
}

/// The error of a request with several steps.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<Refusal> for StepError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denied) => Self::Denied(denied),
            Refusal::Full(full) => Self::Full(full),
        }
    }
}

/// Mounts a container's root file system: upper directory first, then the overlay, all or nothing.
pub fn mount_rootfs(
    storage: &mut Storage,
    judge: &mut Judge,
    sandbox: &ContainerId,
    container: &ContainerId,
    slots: Vec<u32>,
) -> Result<(), StepError> {
    let upper = storage.upper(sandbox, container)?;
    let (layer_paths, layers) = storage.mounted_layers(&slots)?;
    let scratch = upper.target.clone();
    storage.make_upper(judge.enforce(upper)?)?;
    let overlay = MountOverlay {
        container_id: container.clone(),
        layer_paths,
        target: paths::rootfs(container),
    };
    let entry = Entry::Rootfs {
        container: judge::id(container),
        layers,
    };
    let mounted = match judge.enforce_as(overlay, entry) {
        Ok(permit) => storage.mount_overlay(permit, slots, scratch.clone()).map_err(StepError::from),
        Err(refusal) => Err(refusal.into()),
    };
    match mounted {
        Ok(()) => Ok(()),
        // The first error is reported, unless something is left behind.
        Err(error) => match release_upper(storage, judge, scratch) {
            Ok(()) => Err(error),
            Err(_) => Err(StorageError::NotUndone.into()),
        },
    }
}

/// Unmounts a container's root file system and removes what it wrote.
pub fn unmount_rootfs(storage: &mut Storage, judge: &mut Judge, container: &ContainerId) -> Result<(), StepError> {
    let unmount = UnmountOverlay {
        unmount_target: paths::rootfs(container),
    };
    let container_id = judge::id(container);
    let permit = judge.enforce_as(unmount, Entry::RootfsRemoved { container: container_id })?;
    let scratch = storage.unmount_overlay(permit, container)?;
    release_upper(storage, judge, scratch)
}

fn release_upper(storage: &mut Storage, judge: &mut Judge, scratch: String) -> Result<(), StepError> {
    let permit = judge.enforce(ScratchUnmount { unmount_target: scratch })?;
    Ok(storage.remove_upper(permit)?)
}
