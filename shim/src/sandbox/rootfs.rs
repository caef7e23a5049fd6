//! Which layers are on the VM's layer disk and mounted in the guest: each once per sandbox, by root hash.

use super::agent_call;
use crate::{error::Error, layers::CachedLayer, vm::Vm};
use agent_protocol::{MountLayerRequest, MountOverlayRequest, ShutdownContainerRequest, UnmountLayerRequest, UnmountOverlayRequest};
use std::{collections::HashMap, future::Future};

/// Layers of one sandbox.
#[derive(Default)]
pub struct Mounted {
    layers: HashMap<[u8; 32], Attached>,
}

/// A layer that has its place on the layer disk. The place stays for the VM's life, so that a layer that comes
/// back needs no new one.
struct Attached {
    slot: u32,
    first_sector: u64,
    /// Containers that use it; it is mounted while there are any.
    users: usize,
    /// The guest may still have it mounted: a mount was not answered, or an unmount failed.
    doubtful: bool,
}

impl Mounted {
    /// Puts `layers` (lowest first) on the disk, mounts them and lays the container's overlay over them.
    pub async fn mount(&mut self, vm: &Vm, sandbox: &str, container: &str, layers: Vec<CachedLayer>) -> Result<Vec<[u8; 32]>, Error> {
        self.attach(vm, &layers).await?;
        let mut used = Vec::with_capacity(layers.len());
        let mounts = async {
            for layer in &layers {
                self.mount_layer(vm, layer).await?;
                used.push(layer.root_hash);
            }
            // Top layer first, as overlayfs counts them.
            let slots = layers
                .iter()
                .rev()
                .filter_map(|layer| self.layers.get(&layer.root_hash))
                .map(|attached| attached.slot)
                .collect();
            let request = MountOverlayRequest {
                container_id: container.to_owned(),
                sandbox_id: sandbox.to_owned(),
                layer_slots: slots,
                ..Default::default()
            };
            let mounted = vm.agent().mount_overlay(agent_call(), &request).await;
            mounted
                .map(drop)
                .map_err(Error::agent(format!("mount the root file system of container {container}")))
        };
        match mounts.await {
            Ok(()) => Ok(used),
            Err(error) => {
                self.unmount_layers(vm, &used).await;
                Err(error)
            }
        }
    }

    /// Ends a container in the guest and gives its layers back. What fails is logged: for the host it is gone.
    pub async fn unmount(&mut self, vm: &Vm, container: &str, layers: &[[u8; 32]]) {
        let shutdown = ShutdownContainerRequest {
            container_id: container.to_owned(),
            ..Default::default()
        };
        logged(
            format!("shut down container {container}"),
            vm.agent().shutdown_container(agent_call(), &shutdown),
        )
        .await;
        let overlay = UnmountOverlayRequest {
            container_id: container.to_owned(),
            ..Default::default()
        };
        let doing = format!("unmount the root file system of container {container}");
        logged(doing, vm.agent().unmount_overlay(agent_call(), &overlay)).await;
        self.unmount_layers(vm, layers).await;
    }

    /// Gives every new layer a place on the layer disk.
    async fn attach(&mut self, vm: &Vm, layers: &[CachedLayer]) -> Result<(), Error> {
        let mut new: Vec<&CachedLayer> = Vec::new();
        for layer in layers {
            if !self.layers.contains_key(&layer.root_hash) && !new.iter().any(|n| n.root_hash == layer.root_hash) {
                new.push(layer);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let files: Result<Vec<_>, _> = new.iter().map(|layer| Ok((layer.file.try_clone()?, layer.bytes()))).collect();
        let files = files.map_err(|e| Error::Control(crate::vm::ControlError::Socket(e)))?;
        let sectors = vm.append(files).await?;
        for (layer, first_sector) in new.into_iter().zip(sectors) {
            let slot = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
            log::info!("layer {} is slot {slot}, sector {first_sector}", layer.diff_id);
            self.layers.insert(
                layer.root_hash,
                Attached {
                    slot,
                    first_sector,
                    users: 0,
                    doubtful: false,
                },
            );
        }
        Ok(())
    }

    async fn mount_layer(&mut self, vm: &Vm, layer: &CachedLayer) -> Result<(), Error> {
        let Some(attached) = self.layers.get_mut(&layer.root_hash) else {
            return Err(Error::Sandbox("without a layer that was attached"));
        };
        if attached.users == 0 {
            if attached.doubtful {
                unmount_layer(vm, attached).await;
            }
            let request = MountLayerRequest {
                slot: attached.slot,
                first_sector: attached.first_sector,
                data_blocks: layer.data_blocks,
                total_blocks: layer.total_blocks,
                root_hash: layer.root_hash.to_vec(),
                ..Default::default()
            };
            attached.doubtful = true;
            let mounted = vm.agent().mount_layer(agent_call(), &request).await;
            // A guest that answers has done it wholly or not at all.
            attached.doubtful = matches!(&mounted, Err(error) if !matches!(error, ttrpc::Error::RpcStatus(_)));
            mounted.map_err(Error::agent(format!("mount layer sha256:{}", layer.diff_id)))?;
        }
        attached.users += 1;
        Ok(())
    }

    async fn unmount_layers(&mut self, vm: &Vm, layers: &[[u8; 32]]) {
        for root_hash in layers.iter().rev() {
            if let Some(attached) = self.layers.get_mut(root_hash) {
                attached.users = attached.users.saturating_sub(1);
                if attached.users == 0 {
                    unmount_layer(vm, attached).await;
                }
            }
        }
    }
}

async fn unmount_layer(vm: &Vm, attached: &mut Attached) {
    let request = UnmountLayerRequest {
        slot: attached.slot,
        ..Default::default()
    };
    attached.doubtful = true;
    let doing = format!("unmount layer slot {}", attached.slot);
    attached.doubtful = !logged(doing, vm.agent().unmount_layer(agent_call(), &request)).await;
}

/// Whether it was done.
async fn logged<T>(doing: String, call: impl Future<Output = Result<T, ttrpc::Error>>) -> bool {
    match call.await {
        Ok(_) => true,
        Err(error) => {
            log::warn!("cannot {doing}: {error}");
            false
        }
    }
}
