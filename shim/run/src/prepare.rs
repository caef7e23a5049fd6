//! `casemate layer prepare`: an image's layers are converted before a container needs them.
//!
//! kubelet gives up a container that takes two minutes to create, and a large image's first conversion may take longer.

use crate::cleanup::Made;
use crate::containerd::{Containerd, ContainerdError};
use crate::expiry;
use crate::image::{self, FindError};
use crate::layers::{self, LayerError, Node, ReadyLayer};
use crate::news::News;
use crate::signals::Signals;
use crate::source::{Pulled, Source, own_name};
use oci::{Digest, Reference};
use std::error::Error;
use std::time::SystemTime;

/// What to prepare, and where.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// containerd's socket.
    pub address: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The image.
    pub source: Source,
    /// Where converted layers are.
    pub node: Node,
}

/// An image whose layers are in the cache.
#[derive(Debug)]
pub struct Prepared {
    /// Its name in containerd.
    pub name: String,
    /// Digest of its manifest for the guest's platform.
    pub digest: Digest,
    /// Its layers, bottom first; nobody collects them as long as these are open.
    pub layers: Vec<ReadyLayer>,
}

/// Why an image is not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// containerd refused.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// There is no usable image.
    #[error(transparent)]
    Image(#[from] FindError),
    /// The layers cannot be converted.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// A signal came before the last layer was there.
    #[error("ended by signal {0}: layers that were ready stay, the others are begun anew next time")]
    Interrupted(u32),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Puts the layers of an image into the node's cache. `pull` is asked for an image that containerd lacks. Nothing but image and layers
/// stays, whatever the outcome; a layer that is given up leaves no file.
///
/// # Errors
/// See [`PrepareError`].
pub async fn prepare(
    request: &Preparation,
    pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn Error + Send + Sync>>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Prepared, PrepareError> {
    let mut signals = Signals::new().map_err(PrepareError::Signals)?;
    let containerd = Containerd::connect(&request.address, &request.namespace).await?;
    let own = own_name("prepare");
    let mut made = Made::new(containerd.clone(), "", &own);
    let leased = containerd.under_lease(&own);
    let prepared = tokio::select! {
        prepared = under_lease(&leased, request, &own, pull, &mut made, tell) => prepared,
        number = signals.end() => Err(PrepareError::Interrupted(number)),
    };
    for failure in made.remove().await {
        tell(News::Note(format!("something is left: {failure}")));
    }
    prepared
}

async fn under_lease(
    containerd: &Containerd,
    request: &Preparation,
    own: &str,
    pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn Error + Send + Sync>>,
    made: &mut Made,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Prepared, PrepareError> {
    made.lease(own);
    containerd.create_lease(own, expiry::of_lease(SystemTime::now())).await?;
    let found = image::obtain(containerd, &request.source, own, pull, tell).await?;
    let mut progress = |progress| tell(News::Layers(progress));
    let layers = layers::ready(containerd, &found.image.layers, &request.node, "", &mut progress).await?;
    Ok(Prepared {
        name: found.name,
        digest: found.digest,
        layers,
    })
}
