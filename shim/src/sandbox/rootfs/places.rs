//! The slots and places of layers, and which of them are given back.
//!
//! A layer that the guest has unmounted stays where it is. It is released when there would otherwise be too many, the one first that was used
//! least recently, or when its file is damaged; never while the guest may still have it mounted.

use super::{Layer, LayerKey, Mount, Place, RootHash};
use agent_protocol::limits::LAYERS;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::{sync::Mutex, time::Instant};

/// Layers that a disk has before unused ones are released: three quarters of the numbers that an agent knows. The VMM takes four times as
/// many extents.
const LAYERS_MOST: usize = LAYERS / 4 * 3;
/// Their bytes: three quarters of the VMM's largest disk, which has gaps between layers.
const BYTES_MOST: u64 = 48 << 40;

/// The layers of a VM. Both kinds share the guest's slots.
pub struct Places {
    /// Those of the disk that may be mounted.
    layers: HashMap<LayerKey, Arc<Layer>>,
    /// Those that the guest has pulled and keeps: it finds them by their root hashes alone.
    pulled: HashMap<RootHash, Arc<Layer>>,
    /// Layers that are not to be mounted again.
    damaged: Vec<Arc<Layer>>,
    /// Numbers of released layers.
    free: BTreeSet<u32>,
    /// Numbers that were given away, those of released layers included.
    slots: u32,
    layers_most: usize,
    bytes_most: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self::with_room(LAYERS_MOST, BYTES_MOST)
    }
}

impl Places {
    /// An empty disk, which releases unused layers from this size on.
    pub fn with_room(layers_most: usize, bytes_most: u64) -> Self {
        Self {
            layers: HashMap::new(),
            pulled: HashMap::new(),
            damaged: Vec::new(),
            free: BTreeSet::new(),
            slots: 0,
            layers_most,
            bytes_most,
        }
    }

    /// A layer that may be mounted. Whoever has it keeps its place.
    pub fn get(&self, key: &LayerKey) -> Option<Arc<Layer>> {
        self.layers.get(key).cloned()
    }

    /// Notes where a layer of the disk is; returns its slot, which no other layer has.
    pub fn add(&mut self, key: LayerKey, place: Place) -> u32 {
        let layer = self.layer(key.1, place);
        let slot = layer.slot;
        self.layers.insert(key, layer);
        slot
    }

    /// The layer that the guest pulled with this root hash.
    pub fn pulled(&mut self, root: RootHash) -> Arc<Layer> {
        if let Some(known) = self.pulled.get(&root) {
            return known.clone();
        }
        let layer = self.layer(root, Place::Pulled);
        log::info!("pulled layer {} is slot {}", hex::encode(root), layer.slot);
        self.pulled.insert(root, layer.clone());
        layer
    }

    /// A layer in a slot that is free.
    fn layer(&mut self, root_hash: RootHash, place: Place) -> Arc<Layer> {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        Arc::new(Layer {
            slot,
            root_hash,
            place,
            mount: Mutex::default(),
        })
    }

    /// Layers that are not to be mounted again; they are released once they are not used.
    pub fn forget(&mut self, is_damaged: impl Fn(&LayerKey) -> bool) {
        let damaged = self.layers.extract_if(|key, _| is_damaged(key));
        self.damaged.extend(damaged.map(|(_, layer)| layer));
    }

    /// Gives up damaged layers, and as many others as make room for `count` more with `bytes`, as far as they are not used; returns the
    /// first sector of each.
    pub fn make_room(&mut self, count: usize, bytes: u64) -> Vec<u64> {
        let mut gone: Vec<_> = self.damaged.extract_if(.., |layer| idle(layer).is_some()).collect();
        let held = || self.layers.values().chain(&self.damaged);
        let (mut layers_left, mut bytes_left) = (
            held().count() + self.pulled.len() + count,
            held().fold(bytes, |sum, layer| sum.saturating_add(layer.bytes())),
        );
        let mut unused: Vec<_> = self
            .layers
            .iter()
            .filter_map(|(key, layer)| Some((idle(layer)?, *key, layer.bytes())))
            .collect();
        unused.sort_unstable_by_key(|(since, ..)| *since);
        for (_, key, bytes) in unused {
            if layers_left <= self.layers_most && bytes_left <= self.bytes_most {
                break;
            }
            (layers_left, bytes_left) = (layers_left - 1, bytes_left - bytes);
            gone.extend(self.layers.remove(&key));
        }
        self.free.extend(gone.iter().map(|layer| layer.slot));
        gone.iter().filter_map(|layer| layer.first_sector()).collect()
    }
}

impl Layer {
    /// Of the disk; none where it has none of it.
    fn bytes(&self) -> u64 {
        match self.place {
            Place::Attached { bytes, .. } => bytes,
            Place::Pulled => 0,
        }
    }

    fn first_sector(&self) -> Option<u64> {
        match self.place {
            Place::Attached { first_sector, .. } => Some(first_sector),
            Place::Pulled => None,
        }
    }
}

/// Since when nobody has used a layer, or `Some(None)` if nobody ever has; `None` if the guest may have it mounted, or a container may have it
/// mounted any moment.
fn idle(layer: &Arc<Layer>) -> Option<Option<Instant>> {
    let mount = layer.mount.try_lock().ok()?;
    let Mount {
        users,
        uncertain,
        unused_since,
    } = *mount;
    (Arc::strong_count(layer) == 1 && users == 0 && !uncertain).then_some(unused_since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KIB: u64 = 1024;

    fn key(n: u8) -> LayerKey {
        (crate::layers::Digest::from_sha256([n; 32]), [n; 32])
    }

    fn at(first_sector: u64) -> Place {
        Place::Attached {
            diff_id: crate::layers::Digest::of(b"tar"),
            first_sector,
            data_blocks: 1,
            total_blocks: 1,
            bytes: KIB,
        }
    }

    /// Layers 0, 1, … of a KiB each at sectors 0, 10, …, of which the last one was used least recently.
    fn places(count: u8, layers_most: usize, bytes_most: u64) -> Places {
        let mut places = Places::with_room(layers_most, bytes_most);
        let now = Instant::now();
        for n in 0..count {
            assert_eq!(places.add(key(n), at(u64::from(n) * 10)), u32::from(n));
            set(&places, n, |mount| mount.unused_since = Some(now - Duration::from_secs(n.into())));
        }
        places
    }

    /// Damaged layers are in no order.
    fn sorted(mut sectors: Vec<u64>) -> Vec<u64> {
        sectors.sort_unstable();
        sectors
    }

    fn set(places: &Places, n: u8, change: impl FnOnce(&mut Mount)) {
        change(&mut places.layers[&key(n)].mount.try_lock().unwrap());
    }

    #[test]
    fn unused_layers_stay_while_there_is_room_and_go_by_their_last_use() {
        let mut places = places(4, 6, u64::MAX);
        assert_eq!(places.make_room(2, KIB), Vec::<u64>::new());
        assert_eq!(places.make_room(3, KIB), [30]);
        assert_eq!(places.make_room(5, KIB), [20, 10]);
        assert_eq!((places.get(&key(3)).is_none(), places.get(&key(0)).is_some()), (true, true));
        assert_eq!(
            [4, 5, 6, 7].map(|n| places.add(key(n), at(0))),
            [1, 2, 3, 4],
            "numbers are used again"
        );
        assert_eq!(places.make_room(100, KIB).len(), 5);
    }

    #[test]
    fn the_disk_has_a_size_too() {
        let mut places = places(4, 100, 5 * KIB);
        assert_eq!(places.make_room(1, KIB), Vec::<u64>::new());
        assert_eq!(places.make_room(1, 3 * KIB), [30, 20]);
        assert_eq!(places.make_room(1, u64::MAX).len(), 2);
    }

    #[test]
    fn what_the_guest_may_have_mounted_is_never_released() {
        let mut places = places(4, 0, 0);
        set(&places, 0, |mount| mount.users = 1);
        set(&places, 1, |mount| mount.uncertain = true);
        let wanted = places.get(&key(2));
        let busy = places.layers[&key(3)].clone();
        let locked = busy.mount.try_lock().unwrap();
        places.forget(|_| true);
        assert_eq!(places.make_room(1, KIB), Vec::<u64>::new());
        drop(locked);
        drop((wanted, busy));
        assert_eq!(sorted(places.make_room(0, 0)), [20, 30]);
        assert_eq!(places.damaged.len(), 2);
        places
            .damaged
            .iter()
            .for_each(|layer| *layer.mount.try_lock().unwrap() = Mount::default());
        assert_eq!(sorted(places.make_room(0, 0)), [0, 10]);
    }

    #[test]
    fn damaged_layers_go_when_they_are_unused_and_are_not_found_again() {
        let mut places = places(3, 100, u64::MAX);
        set(&places, 1, |mount| mount.users = 1);
        places.forget(|(_, hash)| hash[0] < 2);
        assert!(places.get(&key(0)).is_none() && places.get(&key(1)).is_none() && places.get(&key(2)).is_some());
        assert_eq!(places.make_room(0, 0), [0]);
        assert_eq!(
            [places.add(key(1), at(70)), places.add(key(5), at(80))],
            [0, 3],
            "another number than the one in use"
        );
    }

    #[test]
    fn pulled_and_attached_layers_share_no_slot_and_each_keeps_its_own() {
        let mut places = places(1, 100, u64::MAX);
        let pulled = [1, 2, 1].map(|root| places.pulled([root; 32]).slot);
        assert_eq!(pulled, [1, 2, 1]);
        assert_eq!(places.add(key(1), at(10)), 3, "the same root hash as a pulled one's");
        assert_eq!(places.make_room(100, 0).len(), 2);
        assert_eq!(places.pulled([2; 32]).slot, 2, "the guest keeps what it has pulled");
        assert_eq!(places.pulled([3; 32]).slot, 0);
    }
}
