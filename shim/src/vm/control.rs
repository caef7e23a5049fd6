//! Requests to the VMM's control socket: one connection each, on a blocking thread.

use std::{fs::File, io, path::PathBuf};
use vm_spec::control::{Client, ClientError, EXTENTS_PER_MESSAGE, Extent, Reply, Request};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The VMM did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file for the VMM cannot be duplicated.
    #[error("cannot open a file for the VMM")]
    Socket(#[source] io::Error),
    /// The reply is to another request.
    #[error("the VMM's answer does not belong to the request")]
    Unexpected,
}

/// The control socket of one VMM.
#[derive(Clone)]
pub struct Control(PathBuf);

impl Control {
    /// The control socket at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Appends extent `i`, which lies in file `i`; returns their first sectors.
    pub async fn append(&self, files: Vec<File>, extents: Vec<Extent>) -> Result<Vec<u64>, ControlError> {
        let path = self.0.clone();
        let work = move || {
            let client = Client::connect(&path)?;
            let mut sectors = Vec::with_capacity(extents.len());
            for (files, extents) in files.chunks(EXTENTS_PER_MESSAGE).zip(extents.chunks(EXTENTS_PER_MESSAGE)) {
                match client.ask(&Request::AppendExtents(extents.to_vec()), files)? {
                    Reply::Appended { first_sectors, .. } if first_sectors.len() == extents.len() => sectors.extend(first_sectors),
                    _ => return Err(ControlError::Unexpected),
                }
            }
            Ok(sectors)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(ControlError::Unexpected))
    }

    /// Releases the extents that begin at these sectors.
    pub async fn release(&self, first_sectors: Vec<u64>) -> Result<(), ControlError> {
        let path = self.0.clone();
        let work = move || {
            let client = Client::connect(&path)?;
            for sectors in first_sectors.chunks(EXTENTS_PER_MESSAGE) {
                match client.ask(&Request::ReleaseExtents(sectors.to_vec()), &[] as &[File])? {
                    Reply::Done => (),
                    _ => return Err(ControlError::Unexpected),
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(ControlError::Unexpected))
    }

    /// Gives the network device its TAP.
    pub async fn attach_tap(&self, tap: File) -> Result<(), ControlError> {
        let path = self.0.clone();
        let work = move || match Client::connect(&path)?.ask(&Request::AttachTap, &[tap])? {
            Reply::Done => Ok(()),
            _ => Err(ControlError::Unexpected),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(ControlError::Unexpected))
    }
}
