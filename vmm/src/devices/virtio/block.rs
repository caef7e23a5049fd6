//! virtio-blk (virtio 1.2, 5.2) over a [`Disk`]: the growing read-only layer disk, the scratch disk, the configuration of registries, or a volume.
//!
//! This file serves the queue. The pure functions of [`request`] parse and check a request, and [`execute`] performs it, on the disk as it
//! is when the request is taken, without the device's mutex: a slow disk delays nothing but its own requests.

mod disk;
mod file_io;
mod layers;
mod registries;
pub mod request;
mod scratch;
mod volume;

pub use disk::Disk;
pub use layers::{AppendError, Appended, Layers, MAX_EXTENTS, ReleaseError};
pub use registries::{Registries, RegistriesError};
pub use scratch::{Scratch, ScratchError};
pub use volume::{AttachError, Detached, NothingAttached, Volume, VolumesHandle};

use super::{Activation, Buffers, Chain, Done, Memory, RingError, VirtioDevice, Work, lock, read_config_space};
use request::{Header, MAX_RANGE_SECTORS, MAX_RANGES, RANGE_BYTES, Request, SECTOR_BYTES, Status};
use std::{
    fs::File,
    io,
    sync::{Arc, Mutex},
};
use virtio_bindings::{
    virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES},
    virtio_ids::VIRTIO_ID_BLOCK,
};

/// Descriptors in the request queue.
const QUEUE_SIZE: u16 = 256;
const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];
/// Data descriptors of one request: the queue's size without header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes transferred before the driver is interrupted for completed requests: an interrupt costs the guest two exits.
const SIGNAL_BYTES: usize = 1 << 20;
/// Bytes transferred in a turn of the device's thread.
const BYTES_PER_ITERATION: usize = 4 << 20;
/// Bytes that a range to discard or to zero counts as: it transfers nothing, but the host's file system has work to do.
const RANGE_COST: usize = BYTES_PER_ITERATION / 64;
/// Length of `struct virtio_blk_config` up to the last field used (virtio 1.2, 5.2.4).
const CONFIG_BYTES: usize = 60;

/// The block device.
pub struct Block<D> {
    disk: D,
    generation: u32,
    /// The capacity has changed while there was no driver to interrupt.
    config_change_pending: bool,
    active: Option<Activation>,
    /// Bytes since the driver was last interrupted.
    unsignalled: usize,
    /// What the requests of this turn have cost.
    moved: usize,
}

impl<D: Disk> Block<D> {
    /// A device on `disk`, not active yet.
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            generation: 0,
            config_change_pending: false,
            active: None,
            unsignalled: 0,
            moved: 0,
        }
    }

    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.disk.capacity() / SECTOR_BYTES).to_le_bytes());
        put(12, &SEGMENTS_MAX.to_le_bytes()); // seg_max
        put(36, &MAX_RANGE_SECTORS.to_le_bytes()); // max_discard_sectors
        put(40, &MAX_RANGES.to_le_bytes()); // max_discard_seg
        put(44, &8u32.to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_RANGE_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        config
    }

    fn capacity_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        match &self.active {
            Some(active) => active.interrupt.notify_config_change(),
            None => self.config_change_pending = true,
        }
    }
}

/// Changes the layer disk while the guest runs.
#[derive(Clone)]
pub struct LayersHandle(Arc<Mutex<Block<Layers>>>);

impl LayersHandle {
    /// A handle on a device.
    pub fn new(device: Arc<Mutex<Block<Layers>>>) -> Self {
        Self(device)
    }

    /// Appends extents, each a file, a byte offset and a length, and notifies the guest of the new capacity. Appends all or
    /// none.
    pub fn append(&self, extents: Vec<(File, u64, u64)>) -> Result<Appended, AppendError> {
        let mut device = lock(&self.0);
        let appended = device.disk.append(extents)?;
        device.capacity_changed();
        Ok(appended)
    }

    /// Releases the extents that begin at these sectors, all or none: reading them fails until others take their places.
    pub fn release(&self, first_sectors: &[u64]) -> Result<(), ReleaseError> {
        lock(&self.0).disk.release(first_sectors)
    }
}

impl<D: Disk> VirtioDevice for Block<D> {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_SEG_MAX | self.disk.features()
    }

    fn config_generation(&self) -> u32 {
        self.generation
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) {
        // The driver may have read the capacity before the change, when it could not be interrupted.
        if std::mem::take(&mut self.config_change_pending) {
            activation.interrupt.notify_config_change();
        }
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
    }

    /// Begins a turn.
    fn process_queue(&mut self, index: usize) -> Result<(), RingError> {
        (self.unsignalled, self.moved) = (0, 0);
        if let Some(ring) = self.active.as_mut().and_then(|active| active.rings.get_mut(index)) {
            ring.reset_budget();
        }
        Ok(())
    }

    fn begin<'m>(&mut self, index: usize, memory: &'m Memory) -> Result<Option<Work<'m>>, RingError> {
        let Some(Activation {
            rings,
            interrupt,
            features,
            ..
        }) = &mut self.active
        else {
            return Ok(None);
        };
        let Some(ring) = rings.get_mut(index) else { return Ok(None) };
        loop {
            ring.disable_notification(memory)?;
            if let Some(chain) = ring.pop(memory)? {
                let (disk, features) = (self.disk.clone(), *features);
                return Ok(Some(Box::new(move || serve(&disk, features, chain))));
            }
            ring.notify(memory, interrupt)?;
            if !ring.enable_notification(memory)? {
                return Ok(None);
            }
        }
    }

    fn end(&mut self, index: usize, done: Done) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(index) else { return Ok(()) };
        ring.push_used(memory, done.head, done.written)?;
        (self.unsignalled, self.moved) = (self.unsignalled + done.bytes, self.moved + done.cost);
        if self.unsignalled >= SIGNAL_BYTES {
            self.unsignalled = 0;
            ring.notify(memory, interrupt)?;
        }
        if self.moved >= BYTES_PER_ITERATION {
            ring.exhaust_budget();
        }
        Ok(())
    }
}

fn serve(disk: &impl Disk, features: u64, chain: Chain<'_>) -> Done {
    let head = chain.head;
    // A request beyond the limit is refused and transfers nothing.
    let bytes = (chain.readable.len() + chain.writable.len()).min(request::MAX_TRANSFER_BYTES);
    let (written, ranges) = execute(disk, features, chain);
    let cost = bytes + ranges * RANGE_COST;
    Done {
        head,
        written,
        bytes,
        cost,
    }
}

/// Performs one request and writes its status byte, the last writable byte of the chain. Returns the used length and the
/// number of ranges; the used length is 0 if the chain has no room for a status.
pub fn execute(disk: &impl Disk, features: u64, chain: Chain<'_>) -> (u32, usize) {
    let Chain {
        mut readable,
        writable: mut status,
        ..
    } = chain;
    let total = u32::try_from(status.len()).unwrap_or(u32::MAX);
    let Ok(data) = status.split_to(status.len().saturating_sub(1)) else {
        return (0, 0);
    };
    let mut ranges = 0;
    let outcome = run_request(disk, features, &mut readable, data, &mut ranges)
        .err()
        .unwrap_or(Status::Ok);
    match status.write_all(&[outcome as u8]) {
        Ok(()) => (total, ranges),
        Err(_) => (0, ranges),
    }
}

fn run_request(
    disk: &impl Disk,
    features: u64,
    readable: &mut Buffers<'_>,
    mut writable: Buffers<'_>,
    range_count: &mut usize,
) -> Result<(), Status> {
    let mut header = [0; request::HEADER_BYTES];
    readable.read_exact(&mut header).map_err(|_| Status::IoError)?;
    let request = Request::parse(Header::parse(&header), readable.len(), writable.len(), disk.capacity(), features)?;
    if let Request::Discard { ranges } | Request::WriteZeroes { ranges } = request {
        *range_count = ranges;
    }
    match request {
        Request::Read { offset } => disk.read(offset, writable).map_err(status_of),
        Request::Write { offset } => {
            disk.write(offset, std::mem::take(readable)).map_err(status_of)?;
            // A driver that cannot flush expects that what is written is durable (virtio 1.2, 5.2.6.2).
            if features & 1 << VIRTIO_BLK_F_FLUSH == 0 {
                disk.flush().map_err(status_of)?;
            }
            Ok(())
        }
        Request::Flush => disk.flush().map_err(status_of),
        Request::GetId => {
            let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
            let name = disk.id().as_bytes();
            let len = name.len().min(id.len());
            id[..len].copy_from_slice(&name[..len]);
            let len = writable.len().min(id.len());
            writable.write_all(&id[..len]).map_err(|_| Status::IoError)
        }
        Request::Discard { ranges } => each_range(readable, ranges, |bytes| {
            let range = request::Range::parse_discard(bytes, disk.capacity())?;
            disk.discard(range.offset, range.length).map_err(status_of)
        }),
        Request::WriteZeroes { ranges } => each_range(readable, ranges, |bytes| {
            let range = request::Range::parse_write_zeroes(bytes, disk.capacity())?;
            disk.write_zeroes(range.offset, range.length, range.unmap).map_err(status_of)
        }),
    }
}

fn each_range(
    readable: &mut Buffers<'_>,
    ranges: usize,
    mut act: impl FnMut(&[u8; RANGE_BYTES]) -> Result<(), Status>,
) -> Result<(), Status> {
    for _ in 0..ranges {
        let mut bytes = [0; RANGE_BYTES];
        readable.read_exact(&mut bytes).map_err(|_| Status::IoError)?;
        act(&bytes)?;
    }
    Ok(())
}

/// `Unsupported` lets the driver fall back to another request; every other failure is an I/O error.
fn status_of(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::Unsupported => Status::Unsupported,
        _ => Status::IoError,
    }
}

#[cfg(test)]
mod tests;
