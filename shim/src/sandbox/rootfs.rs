//! Root file systems of the containers of one VM, and the layers that they share: each once per VM.
//!
//! A layer that no container uses stays on the disk, since pods restart containers of the same images ([`places`]).
//!
//! Locks: `places` orders what is appended to the layer disk, and each layer has a lock of its own for its mount. Nothing
//! holds a lock while a container is shut down, so a container that is slow to die delays no other container.

mod places;

use super::{agent_call, pulled::RootHash};
use crate::{
    error::Error,
    layers::{CachedLayer, Digest},
    vm::{ControlError, Vm},
};
use agent_protocol::{MountLayerRequest, MountOverlayRequest, ShutdownContainerRequest, UnmountLayerRequest, UnmountOverlayRequest};
use places::Places;
use std::{future::Future, sync::Arc};
use tokio::{sync::Mutex, time::Instant};

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
        /// Of the disk.
        bytes: u64,
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
    /// When the last container that used it was gone.
    unused_since: Option<Instant>,
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
    /// Layers of a VM whose disk has room for fewer.
    #[cfg(test)]
    pub fn with_room(layers: usize, bytes: u64) -> Self {
        Self {
            places: Mutex::new(Places::with_room(layers, bytes)),
        }
    }

    /// Forgets layers whose files are damaged: what is made anew gets a new place. Containers that have one mounted keep it.
    pub async fn forget(&self, blobs: &[Digest]) {
        self.places.lock().await.forget(|(blob, _)| blobs.contains(blob));
    }

    /// The pulled layers with these root hashes, in their order.
    async fn pulled(&self, roots: &[RootHash]) -> Vec<Arc<Layer>> {
        let mut places = self.places.lock().await;
        roots.iter().map(|root| places.pulled(*root)).collect()
    }

    /// Appends each layer that is new to the layer disk; returns all of `layers` in their order.
    async fn attach(&self, vm: &Vm, layers: &[CachedLayer]) -> Result<Vec<Arc<Layer>>, Error> {
        let mut places = self.places.lock().await;
        // What is about to be mounted keeps its place.
        let _wanted: Vec<_> = layers.iter().filter_map(|layer| places.get(&key(layer))).collect();
        let mut new: Vec<&CachedLayer> = Vec::new();
        for layer in layers {
            if places.get(&key(layer)).is_none() && !new.iter().any(|n| key(n) == key(layer)) {
                new.push(layer);
            }
        }
        let bytes = new.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.bytes()));
        let released = places.make_room(new.len(), bytes);
        if !released.is_empty()
            && let Err(error) = vm.release(released).await
        {
            // The VMM keeps their files, and nothing names their places any more.
            log::warn!("cannot release layers: {error}");
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
                    bytes: layer.bytes(),
                };
                let slot = places.add(key(layer), place);
                log::info!("layer {} is slot {slot}, sector {first_sector}", layer.diff_id);
            }
        }
        layers
            .iter()
            .map(|layer| places.get(&key(layer)).ok_or(Error::Control(ControlError::Unexpected)))
            .collect()
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
            mount.unused_since = Some(Instant::now());
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
    fn the_guest_finds_a_layer_by_its_place_or_by_its_root_hash() {
        let layer = |place| Layer {
            slot: 7,
            root_hash: [1; 32],
            place,
            mount: Mutex::default(),
        };
        let of_disk = layer(Place::Attached {
            diff_id: Digest::of(b"tar"),
            first_sector: 8,
            data_blocks: 3,
            total_blocks: 5,
            bytes: 5 << 12,
        });
        let (of_disk, of_guest) = (of_disk.request(), layer(Place::Pulled).request());
        assert_eq!(
            (of_disk.pulled, of_disk.first_sector, of_disk.data_blocks, of_disk.total_blocks),
            (false, 8, 3, 5)
        );
        assert_eq!(
            (of_guest.pulled, of_guest.first_sector, of_guest.data_blocks, of_guest.total_blocks),
            (true, 0, 0, 0)
        );
        assert_eq!((of_guest.slot, &of_guest.root_hash[..]), (7, &[1; 32][..]));
    }
}
