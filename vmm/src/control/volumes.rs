//! Requests that put disks into volume slots and take them out.

use crate::{
    devices::virtio::block::{Detached, VolumesHandle},
    exit_reason::with_causes,
};
use std::{fs::File, os::fd::OwnedFd};
use vm_spec::control::Reply;

/// Attaches the one file that came with the request.
pub fn attach(volumes: &VolumesHandle, slot: u8, read_only: bool, files: Vec<OwnedFd>) -> Result<(), String> {
    let [file] =
        <[OwnedFd; 1]>::try_from(files).map_err(|files| format!("attach_disk takes one file descriptor; {} came with it", files.len()))?;
    let attached = volumes.attach(slot.into(), File::from(file), read_only);
    let attached = attached.ok_or_else(|| no_slot(volumes, slot))?;
    attached.map_err(|e| format!("cannot attach a disk to volume slot {slot}: {}", with_causes(&e)))
}

/// Detaches the disk of a slot, as far as its requests are done.
pub fn detach(volumes: &VolumesHandle, slot: u8) -> Result<Reply, String> {
    let detached = volumes.detach(slot.into()).ok_or_else(|| no_slot(volumes, slot))?;
    match detached.map_err(|e| format!("cannot detach the disk of volume slot {slot}: {e}"))? {
        Detached::Done => Ok(Reply::Done),
        Detached::Draining => Ok(Reply::Draining),
    }
}

fn no_slot(volumes: &VolumesHandle, slot: u8) -> String {
    format!(
        "this VM has no volume slot {slot} (`volumes.slots` of its spec is {})",
        volumes.count()
    )
}
