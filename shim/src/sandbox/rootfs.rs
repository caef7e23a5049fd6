//! Root file systems of the containers of one VM, and the layers that they share: each once per VM.
//!
//! Locks: `disk` orders what is appended to the layer disk, and each layer has a lock of its own for its mount. Nothing
//! holds a lock while a container is shut down, so a container that is slow to die delays no other container.

use super::agent_call;
use crate::{
    error::Error,
    layers::{CachedLayer, Digest},
    vm::{ControlError, Vm},
};
use agent_protocol::{MountLayerRequest, MountOverlayRequest, ShutdownContainerRequest, UnmountLayerRequest, UnmountOverlayRequest};
use std::{collections::HashMap, future::Future, sync::Arc};
use tokio::sync::Mutex;

/// What tells layers apart: the digest of the blob, and the root hash. A root hash is a converter's word, so that of one image's layer
/// must not lead to another's.
type LayerKey = (Digest, [u8; 32]);

fn key(layer: &CachedLayer) -> LayerKey {
    (layer.blob, layer.root_hash)
}

/// The layers on the layer disk of one VM.
#[derive(Default)]
pub struct LayerDisk {
    disk: Mutex<Disk>,
}

#[derive(Default)]
struct Disk {
    /// A layer keeps its place for the VM's life, so that one that is mounted again needs no new place.
    layers: HashMap<LayerKey, Arc<Layer>>,
    /// Places that were given away, those of forgotten layers included.
    slots: u32,
}

/// A layer with its place on the layer disk.
pub struct Layer {
    slot: u32,
    first_sector: u64,
    mount: Mutex<Mount>,
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

    /// Mounts `layers` (lowest first) and the container's overlay over them.
    ///
    /// # Errors
    /// When the VMM or the agent refuses; the layers are unmounted again.
    pub async fn mount(disk: &LayerDisk, vm: &Arc<Vm>, sandbox: &str, container: &str, layers: &[CachedLayer]) -> Result<Self, Error> {
        let attached = disk.attach(vm, layers).await?;
        let mut rootfs = Self {
            vm: vm.clone(),
            layers: Vec::with_capacity(layers.len()),
        };
        let mounts = async {
            for (layer, cached) in attached.into_iter().zip(layers) {
                layer.mount(vm, cached).await?;
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

impl LayerDisk {
    /// Forgets layers whose files are damaged: what is made anew gets a new place. Containers that have one mounted keep it.
    pub async fn forget(&self, blobs: &[Digest]) {
        self.disk.lock().await.layers.retain(|(blob, _), _| !blobs.contains(blob));
    }

    /// Appends each layer that is new to the layer disk; returns all of `layers` in their order.
    async fn attach(&self, vm: &Vm, layers: &[CachedLayer]) -> Result<Vec<Arc<Layer>>, Error> {
        let mut disk = self.disk.lock().await;
        let mut new: Vec<&CachedLayer> = Vec::new();
        for layer in layers {
            if !disk.layers.contains_key(&key(layer)) && !new.iter().any(|n| key(n) == key(layer)) {
                new.push(layer);
            }
        }
        if !new.is_empty() {
            let files: Result<Vec<_>, _> = new.iter().map(|layer| Ok((layer.file.try_clone()?, layer.bytes()))).collect();
            let files = files.map_err(|e| Error::Control(ControlError::Socket(e)))?;
            let sectors = vm.append(files).await?;
            for (layer, first_sector) in new.into_iter().zip(sectors) {
                let slot = disk.slots;
                disk.slots += 1;
                log::info!("layer {} is slot {slot}, sector {first_sector}", layer.diff_id);
                let attached = Layer {
                    slot,
                    first_sector,
                    mount: Mutex::default(),
                };
                disk.layers.insert(key(layer), Arc::new(attached));
            }
        }
        layers
            .iter()
            .map(|layer| {
                disk.layers
                    .get(&key(layer))
                    .cloned()
                    .ok_or(Error::Control(ControlError::Unexpected))
            })
            .collect()
    }
}

impl Layer {
    /// Mounts it for one more container.
    async fn mount(&self, vm: &Vm, layer: &CachedLayer) -> Result<(), Error> {
        let mut mount = self.mount.lock().await;
        if mount.users == 0 {
            if mount.uncertain {
                self.unmount_in_guest(vm, &mut mount).await;
            }
            let request = MountLayerRequest {
                slot: self.slot,
                first_sector: self.first_sector,
                data_blocks: layer.data_blocks,
                total_blocks: layer.total_blocks,
                root_hash: layer.root_hash.to_vec(),
                ..Default::default()
            };
            mount.uncertain = true;
            let mounted = vm.agent().mount_layer(agent_call(), &request).await;
            // An agent that answers has mounted the layer completely or not at all.
            mount.uncertain = matches!(&mounted, Err(error) if !matches!(error, ttrpc::Error::RpcStatus(_)));
            mounted.map_err(Error::agent(format!("mount layer {}", layer.diff_id)))?;
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
