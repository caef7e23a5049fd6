//! Sources of layers: an OCI layout, layer files, or root hashes.

use std::fs::File;
use std::path::Path;

use oci::{ImageConfig, OciLayout};

use crate::GenerateError;
use crate::config::Container;

/// The layers of a container, and the configuration of its image.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Root hashes, bottom layer first.
    pub(crate) layers: Vec<String>,
    /// Empty unless there is an image.
    pub(crate) image: ImageConfig,
    /// Whether there is an image.
    pub(crate) has_image: bool,
}

/// Reads a container's layers and its image's configuration.
pub(crate) fn find(container: &Container, place: &str, base_dir: &Path) -> Result<Source, GenerateError> {
    let field = |problem: &str| GenerateError::Field {
        place: place.to_owned(),
        problem: problem.to_owned(),
    };
    match (&container.image, container.layer_files.is_empty(), container.layers.is_empty()) {
        (Some(directory), true, true) => from_layout(&base_dir.join(directory), container.image_tag.as_deref(), place),
        (None, false, true) => {
            let layers = container
                .layer_files
                .iter()
                .map(|path| Ok(hash(&base_dir.join(path))?.root_hash.to_string()));
            Ok(Source {
                layers: layers.collect::<Result<_, GenerateError>>()?,
                ..Source::default()
            })
        }
        (None, true, false) => {
            if let Some(wrong) = container.layers.iter().find(|hash| hash.parse::<layer::RootHash>().is_err()) {
                return Err(field(&format!("layer {wrong:?} is not a root hash of 64 lower-case hex digits")));
            }
            Ok(Source {
                layers: container.layers.clone(),
                ..Source::default()
            })
        }
        (None, true, true) => Err(field("give its layers: image (an OCI layout directory), layer_files or layers")),
        _ => Err(field("give only one of image, layer_files and layers")),
    }
}

fn from_layout(directory: &Path, tag: Option<&str>, place: &str) -> Result<Source, GenerateError> {
    let layout = OciLayout::new(directory);
    let image = layout.image(tag).map_err(|source| GenerateError::Image {
        place: place.to_owned(),
        source,
    })?;
    let mut layers = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        let path = layout.blob(layer.blob);
        let converted = hash(&path)?;
        if converted.diff_id != layer.diff_id {
            return Err(GenerateError::DiffId { path });
        }
        layers.push(converted.root_hash.to_string());
    }
    Ok(Source {
        layers,
        image: image.config,
        has_image: true,
    })
}

fn hash(path: &Path) -> Result<layer::Converted, GenerateError> {
    let file = File::open(path).map_err(|source| GenerateError::Read {
        path: path.to_owned(),
        source,
    })?;
    layer::hash(file, &layer::Limits::default()).map_err(|source| GenerateError::Layer {
        path: path.to_owned(),
        source,
    })
}
