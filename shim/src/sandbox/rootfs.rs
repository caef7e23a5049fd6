//! Root file systems of the containers of one VM, and the layers that they share: each once per VM.
//!
//! Locks: `places` orders what is appended to the layer disk, and each layer has a lock of its own for its mount. Nothing
//! holds a lock while a container is shut down, so a container that is slow to die delays no other container.

use super::{agent_call, pulled::RootHash};
use crate::{
    error::Error,
    layers::{CachedLayer, Digest},
    vm::{ControlError, Vm},
};
use agent_protocol::{MountLayerRequest, MountOverlayRequest, ShutdownContainerRequest, UnmountLayerRequest, UnmountOverlayRequest};
use std::{collections::HashMap, future::Future, sync::Arc};
use tokio::sync::Mutex;

/// What tells layers of the disk apart: the digest of the blob, and the root hash. A root hash is a converter's word, so that of one image's layer
/// must not lead to another's.
type LayerKey = (Digest, RootHash);

fn key(layer: &CachedLayer) -> LayerKey {
    (layer.blob, layer.root_hash)
}

/// Layers that a container needs, lowest first.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// Those of this host's cache.
    Attached(&'a [CachedLayer]),
    /// Those that the guest has pulled.
    Pulled(&'a [RootHash]),
}

/// The layers of one VM.
#[derive(Default)]
pub struct VmLayers {
    places: Mutex<Places>,
}

/// A layer keeps its slot for the VM's life, so that one that is mounted again needs no new one.
#[derive(Default)]
struct Places {
    attached: HashMap<LayerKey, Arc<Layer>>,
    /// The guest finds them by their root hashes alone.
    pulled: HashMap<RootHash, Arc<Layer>>,
    /// Slots that were given away, those of forgotten layers included. Both kinds share the guest's slots.
    slots: u32,
}

/// A layer with its slot in the guest.
pub struct Layer {
    slot: u32,
    root_hash: RootHash,
    place: Place,
    mount: Mutex<Mount>,
}

/// Where the guest has a layer from.
enum Place {
    /// The layer disk.
    Attached {
        /// Names it in errors.
        diff_id: Digest,
        first_sector: u64,
        data_blocks: u64,
        total_blocks: u64,
    },
    /// Its own scratch.
    Pulled,
}

/// Whether a layer is mounted in the guest.
#[derive(Default)]
struct Mount {
    /// Containers that use it; it is mounted while there are any.
    users: usize,
    /// The guest may still have it mounted: a mount was not answered, or an unmount failed.
    uncertain: bool,
}

/// The root file system of a container, mounted in the guest.
pub struct Rootfs {
    /// The VM it is in.
    pub vm: Arc<Vm>,
    /// Its layers, lowest first.
    layers: Vec<Arc<Layer>>,
}

impl Rootfs {
    /// A root file system without layers.
    #[cfg(test)]
    pub fn empty(vm: Arc<Vm>) -> Self {
        Self { vm, layers: Vec::new() }
    }

    /// Mounts the layers that are wanted and the container's overlay over them.
    ///
    /// # Errors
    /// When the VMM or the agent refuses; the layers are unmounted again.
    pub async fn mount(known: &VmLayers, vm: &Arc<Vm>, sandbox: &str, container: &str, wanted: Wanted<'_>) -> Result<Self, Error> {
        let layers = match wanted {
            Wanted::Attached(cached) => known.attach(vm, cached).await?,
            Wanted::Pulled(roots) => known.pulled(roots).await,
        };
        let mut rootfs = Self {
            vm: vm.clone(),
            layers: Vec::with_capacity(layers.len()),
        };
        let mounts = async {
            for layer in layers {
                layer.mount(vm).await?;
                rootfs.layers.push(layer);
            }
            let request = MountOverlayRequest {
                container_id: container.to_owned(),
                sandbox_id: sandbox.to_owned(),
                // overlayfs counts from the top layer.
                layer_slots: rootfs.layers.iter().rev().map(|layer| layer.slot).collect(),
                ..Default::default()
            };
            let mounted = vm.agent().mount_overlay(agent_call(), &request).await;
            mounted
                .map(drop)
                .map_err(Error::agent(format!("mount the root file system of container {container}")))
        };
        match mounts.await {
            Ok(()) => Ok(rootfs),
            Err(error) => {
                rootfs.unmount_layers().await;
                Err(error)
            }
        }
    }

    /// Shuts the container down in the guest, and unmounts its overlay and the layers that no other container uses. A failure
    /// is logged: for the host the container is gone.
    pub async fn unmount(&self, container: &str) {
        let shutdown = ShutdownContainerRequest {
            container_id: container.to_owned(),
            ..Default::default()
        };
        succeeds(
            format!("shut down container {container}"),
            self.vm.agent().shutdown_container(agent_call(), &shutdown),
        )
        .await;
        let overlay = UnmountOverlayRequest {
            container_id: container.to_owned(),
            ..Default::default()
        };
        let doing = format!("unmount the root file system of container {container}");
        succeeds(doing, self.vm.agent().unmount_overlay(agent_call(), &overlay)).await;
        self.unmount_layers().await;
    }

    async fn unmount_layers(&self) {
        for layer in self.layers.iter().rev() {
            layer.unmount(&self.vm).await;
        }
    }
}

impl VmLayers {
    /// Forgets layers whose files are damaged: what is made anew gets a new place. Containers that have one mounted keep it.
    pub async fn forget(&self, blobs: &[Digest]) {
        self.places.lock().await.attached.retain(|(blob, _), _| !blobs.contains(blob));
    }

    /// The pulled layers with these root hashes, in their order.
    async fn pulled(&self, roots: &[RootHash]) -> Vec<Arc<Layer>> {
        let mut places = self.places.lock().await;
        roots.iter().map(|root| places.pulled(*root)).collect()
    }

    /// Appends each layer that is new to the layer disk; returns all of `layers` in their order.
    async fn attach(&self, vm: &Vm, layers: &[CachedLayer]) -> Result<Vec<Arc<Layer>>, Error> {
        let mut places = self.places.lock().await;
        let mut new: Vec<&CachedLayer> = Vec::new();
        for layer in layers {
            if !places.attached.contains_key(&key(layer)) && !new.iter().any(|n| key(n) == key(layer)) {
                new.push(layer);
            }
        }
        if !new.is_empty() {
            let files: Result<Vec<_>, _> = new.iter().map(|layer| Ok((layer.file.try_clone()?, layer.bytes()))).collect();
            let files = files.map_err(|e| Error::Control(ControlError::Socket(e)))?;
            let sectors = vm.append(files).await?;
            for (layer, first_sector) in new.into_iter().zip(sectors) {
                let place = Place::Attached {
                    diff_id: layer.diff_id,
                    first_sector,
                    data_blocks: layer.data_blocks,
                    total_blocks: layer.total_blocks,
                };
                let attached = places.layer(layer.root_hash, place);
                log::info!("layer {} is slot {}, sector {first_sector}", layer.diff_id, attached.slot);
                places.attached.insert(key(layer), attached);
            }
        }
        layers
            .iter()
            .map(|layer| {
                places
                    .attached
                    .get(&key(layer))
                    .cloned()
                    .ok_or(Error::Control(ControlError::Unexpected))
            })
            .collect()
    }
}

impl Places {
    /// A layer in the next slot.
    fn layer(&mut self, root_hash: RootHash, place: Place) -> Arc<Layer> {
        let slot = self.slots;
        self.slots += 1;
        Arc::new(Layer {
            slot,
            root_hash,
            place,
            mount: Mutex::default(),
        })
    }

    /// The layer that the guest pulled with this root hash.
    fn pulled(&mut self, root: RootHash) -> Arc<Layer> {
        if let Some(known) = self.pulled.get(&root) {
            return known.clone();
        }
        let layer = self.layer(root, Place::Pulled);
        log::info!("pulled layer {} is slot {}", hex::encode(root), layer.slot);
        self.pulled.insert(root, layer.clone());
        layer
    }
}

impl Layer {
    fn name(&self) -> String {
        match self.place {
            Place::Attached { diff_id, .. } => diff_id.to_string(),
            Place::Pulled => format!("with root hash {}", hex::encode(self.root_hash)),
        }
    }

    fn request(&self) -> MountLayerRequest {
        let mut request = MountLayerRequest {
            slot: self.slot,
            root_hash: self.root_hash.to_vec(),
            ..Default::default()
        };
        match self.place {
            Place::Attached {
                first_sector,
                data_blocks,
                total_blocks,
                ..
            } => {
                request.first_sector = first_sector;
                request.data_blocks = data_blocks;
                request.total_blocks = total_blocks;
            }
            Place::Pulled => request.pulled = true,
        }
        request
    }

    /// Mounts it for one more container.
    async fn mount(&self, vm: &Vm) -> Result<(), Error> {
        let mut mount = self.mount.lock().await;
        if mount.users == 0 {
            if mount.uncertain {
                self.unmount_in_guest(vm, &mut mount).await;
            }
            mount.uncertain = true;
            let mounted = vm.agent().mount_layer(agent_call(), &self.request()).await;
            // An agent that answers has mounted the layer completely or not at all.
            mount.uncertain = matches!(&mounted, Err(error) if !matches!(error, ttrpc::Error::RpcStatus(_)));
            mounted.map_err(Error::agent(format!("mount layer {}", self.name())))?;
        }
        mount.users += 1;
        Ok(())
    }

    /// Unmounts it for one container.
    async fn unmount(&self, vm: &Vm) {
        let mut mount = self.mount.lock().await;
        mount.users = mount.users.saturating_sub(1);
        if mount.users == 0 {
            self.unmount_in_guest(vm, &mut mount).await;
        }
    }

    async fn unmount_in_guest(&self, vm: &Vm, mount: &mut Mount) {
        let request = UnmountLayerRequest {
            slot: self.slot,
            ..Default::default()
        };
        mount.uncertain = true;
        let doing = format!("unmount layer slot {}", self.slot);
        mount.uncertain = !succeeds(doing, vm.agent().unmount_layer(agent_call(), &request)).await;
    }
}

/// Whether the call succeeded; a failure is logged.
async fn succeeds<T>(doing: String, call: impl Future<Output = Result<T, ttrpc::Error>>) -> bool {
    match call.await {
        Ok(_) => true,
        Err(error) => {
            log::warn!("cannot {doing}: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulled_and_attached_layers_share_no_slot_and_each_keeps_its_own() {
        let mut places = Places::default();
        let attached = |places: &mut Places, root| {
            let place = Place::Attached {
                diff_id: Digest::of(b"tar"),
                first_sector: 8,
                data_blocks: 3,
                total_blocks: 5,
            };
            places.layer([root; 32], place)
        };
        // The guest may have pulled what the host has attached: both can be mounted.
        let first = attached(&mut places, 1);
        let pulled = places.pulled([1; 32]);
        let last = attached(&mut places, 2);
        assert_eq!((first.slot, pulled.slot, last.slot), (0, 1, 2));
        assert_eq!(places.pulled([1; 32]).slot, 1);
        assert_eq!(places.pulled([3; 32]).slot, 3);
        let (of_disk, of_guest) = (first.request(), pulled.request());
        assert_eq!(
            (of_disk.pulled, of_disk.first_sector, of_disk.data_blocks, of_disk.total_blocks),
            (false, 8, 3, 5)
        );
        assert_eq!(
            (of_guest.pulled, of_guest.first_sector, of_guest.data_blocks, of_guest.total_blocks),
            (true, 0, 0, 0)
        );
        assert_eq!((of_guest.slot, &of_guest.root_hash[..]), (1, &[1; 32][..]));
    }
}
