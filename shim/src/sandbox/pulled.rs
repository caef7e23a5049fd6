//! Images that the guest has pulled itself: each once per VM, and one at a time.
//!
//! A pull goes on if the container that wanted it is given up, as kubelet gives up a creation after two minutes: the next container finds
//! it done, or waits for it.

use crate::{error::Error, layers::guest::PinnedImage};
use agent_protocol::{
    AgentClient, PullImageRequest,
    limits::{OVERLAY_LAYERS, PULL_DEADLINE, REQUEST_DEADLINE},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex as Turn;

/// dm-verity root hash of a layer.
pub type RootHash = [u8; 32];

/// How long a pull is waited for: as long as the agent lets it run, and until it has kept the layers, so that its own error comes first.
const WAIT: Duration = Duration::from_secs(PULL_DEADLINE.as_secs() + REQUEST_DEADLINE.as_secs());

/// The pulled images of one VM. Clones are the same.
#[derive(Clone, Default)]
pub struct Pulled {
    /// Root hashes of layers, bottom first. The guest keeps what it has pulled.
    images: Arc<Mutex<BTreeMap<PinnedImage, Vec<RootHash>>>>,
    /// The guest pulls one image at once.
    turn: Arc<Turn<()>>,
}

impl Pulled {
    /// Root hashes of the image's layers, bottom first, once the guest has pulled it.
    ///
    /// # Errors
    /// When the guest refuses, its puller fails, or the answer is none.
    pub async fn layers(&self, agent: &AgentClient, sandbox: &str, image: &PinnedImage) -> Result<Vec<RootHash>, Error> {
        if let Some(known) = self.known(image) {
            return Ok(known);
        }
        let turn = self.turn.clone().lock_owned().await;
        if let Some(known) = self.known(image) {
            return Ok(known);
        }
        let (this, agent, sandbox, image) = (self.clone(), agent.clone(), sandbox.to_owned(), image.clone());
        let pull = tokio::spawn(async move {
            let pulled = pull(&agent, sandbox, &image).await;
            match &pulled {
                Ok(layers) => {
                    log::info!("the guest has image {image} with {} layers", layers.len());
                    let mut images = this.images.lock().unwrap_or_else(PoisonError::into_inner);
                    images.insert(image, layers.clone());
                }
                // Perhaps nobody else hears of it.
                Err(error) => log::warn!("the guest has not pulled image {image}: {}", crate::describe::describe(error)),
            }
            drop(turn);
            pulled
        });
        // It is cancelled with the shim alone.
        pull.await.map_err(|_| Error::Aborted)?
    }

    fn known(&self, image: &PinnedImage) -> Option<Vec<RootHash>> {
        // Whole entries are inserted, so what a panicking thread left is sound.
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }
}

async fn pull(agent: &AgentClient, sandbox_id: String, image: &PinnedImage) -> Result<Vec<RootHash>, Error> {
    let request = PullImageRequest {
        sandbox_id,
        image: image.to_string(),
        ..Default::default()
    };
    let pulled = agent.pull_image(ttrpc::context::with_duration(WAIT), &request).await;
    let pulled = pulled.map_err(Error::agent(format!("pull image {image} in the guest")))?;
    let layers = pulled.root_hashes.into_iter().map(|root| root.try_into().ok());
    let layers: Option<Vec<RootHash>> = layers.collect();
    layers
        .filter(|layers| (1..=OVERLAY_LAYERS).contains(&layers.len()))
        .ok_or_else(|| Error::PullAnswer(image.to_string()))
}
