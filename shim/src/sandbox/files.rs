//! What the guest has of the pod's files: given when a container brings others.

use super::agent_call;
use crate::{
    bundle::FileSources,
    error::Error,
    pod_files::{self, PodFileError},
    vm::Vm,
};
use agent_protocol::WritePodFilesRequest;
use std::{io, path::PathBuf};
use tokio::{sync::Mutex, task::spawn_blocking};

/// What the guest has of them.
#[derive(Default)]
pub struct PodFiles(Mutex<WritePodFilesRequest>);

impl PodFiles {
    /// Gives the guest what `sources` has; what an earlier container brought and this one lacks stays.
    ///
    /// # Errors
    /// When a file cannot be read, or the agent refuses; the guest then has what it had.
    pub async fn update(&self, vm: &Vm, sandbox: &str, sources: FileSources) -> Result<(), Error> {
        if sources == FileSources::default() {
            return Ok(());
        }
        let read = spawn_blocking(move || pod_files::read(&sources)).await;
        let read = read.map_err(|e| PodFileError::Read(PathBuf::new(), io::Error::other(e)))??;
        let mut known = self.0.lock().await;
        let wanted = pod_files::merged(&known, read, sandbox);
        if wanted == *known {
            return Ok(());
        }
        let written = vm.agent().write_pod_files(agent_call(), &wanted).await;
        written.map_err(Error::agent("write the pod's files"))?;
        *known = wanted;
        Ok(())
    }

    /// The name servers of the pod's resolv.conf, those that are addresses.
    pub async fn name_servers(&self) -> Vec<String> {
        pod_files::name_servers(&String::from_utf8_lossy(&self.0.lock().await.resolv_conf))
    }
}
