//! Sources of layers: an image in files, layer files, or root hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use layer::Notes;
use oci::ImageConfig;

use crate::config::Container;
use crate::{GenerateError, archive};

/// The layers of a container, and the configuration of its image.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Root hashes, bottom layer first.
    pub(crate) layers: Vec<String>,
    /// Empty unless there is an image.
    pub(crate) image: ImageConfig,
    /// Whether there is an image.
    pub(crate) has_image: bool,
    /// What a guest will show otherwise than the layers say.
    pub(crate) notes: Notes,
}

/// Reads a container's layers and its image's configuration.
pub(crate) fn find(container: &Container, place: &str, base_dir: &Path) -> Result<Source, GenerateError> {
    let field = |problem: &str| GenerateError::Field {
        place: place.to_owned(),
        problem: problem.to_owned(),
    };
    match (&container.image, container.layer_files.is_empty(), container.layers.is_empty()) {
        (Some(directory), true, true) => from_image(&base_dir.join(directory), container.image_tag.as_deref(), place),
        (None, false, true) => {
            let mut source = Source::default();
            for path in &container.layer_files {
                let path = base_dir.join(path);
                let file = File::open(&path).map_err(|source| GenerateError::Read {
                    path: path.clone(),
                    source,
                })?;
                source.add(&hash(file, &path)?);
            }
            Ok(source)
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
        (None, true, true) => Err(field(
            "give its layers: image (an OCI layout, a docker save archive or a skopeo dir:), layer_files or layers",
        )),
        _ => Err(field("give only one of image, layer_files and layers")),
    }
}

impl Source {
    fn add(&mut self, layer: &layer::Converted) {
        self.layers.push(layer.root_hash.to_string());
        self.notes.access_lists += layer.notes.access_lists;
        self.notes.times += layer.notes.times;
    }
}

fn from_image(path: &Path, pick: Option<&str>, place: &str) -> Result<Source, GenerateError> {
    let unusable = |source| GenerateError::Image {
        place: place.to_owned(),
        source,
    };
    let store = archive::open(path, place)?;
    let image = store.image(pick).map_err(unusable)?;
    let mut source = Source {
        image: image.config,
        has_image: true,
        ..Source::default()
    };
    for layer in &image.layers {
        let path = store.shown(layer);
        let converted = hash(store.layer(layer).map_err(unusable)?, &path)?;
        if converted.diff_id != layer.diff_id {
            return Err(GenerateError::DiffId { path });
        }
        source.add(&converted);
    }
    Ok(source)
}

fn hash(layer: impl Read + Send, path: &Path) -> Result<layer::Converted, GenerateError> {
    layer::hash(layer, &layer::Limits::default()).map_err(|source| GenerateError::Layer {
        path: path.to_owned(),
        source,
    })
}
