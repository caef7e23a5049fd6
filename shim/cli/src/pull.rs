//! Pulls an image that containerd lacks.

use crate::policy::images;
use container_run::Pulled;
use oci::Reference;
use std::error::Error;
use std::path::Path;

/// The image as files, for containerd to take.
///
/// # Errors
/// It cannot be pulled.
pub async fn for_containerd(reference: &Reference, registries: Option<&Path>) -> Result<Pulled, Box<dyn Error + Send + Sync>> {
    let layout = images::layout(&reference.to_string(), registries).await?;
    Ok(Pulled {
        layout: layout.path().to_owned(),
        keep: Box::new(layout),
    })
}
