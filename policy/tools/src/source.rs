//! Sources of layers: an image in files, layer files, or root hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use layer::Notes;
use oci::{ImageConfig, Platform};

use crate::config::Container;
use crate::root_cache::{KnownLayer, RootCache};
use crate::{GenerateError, archive};

/// Where generation finds what a configuration names.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Paths in the configuration are relative to it.
    pub base_dir: &'a Path,
    /// Root hashes that were computed before; layers of images that are in it are not read.
    pub roots: Option<&'a RootCache>,
    /// The platform of images, if it is not what every guest runs.
    pub platform: Option<&'a Platform>,
}

impl<'a> Sources<'a> {
    /// The files below `base_dir` alone.
    pub fn of(base_dir: &'a Path) -> Self {
        Self {
            base_dir,
            roots: None,
            platform: None,
        }
    }
}

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
pub(crate) fn find(
    container: &Container,
    place: &str,
    sources: &Sources<'_>,
    warn: &mut dyn FnMut(String),
) -> Result<Source, GenerateError> {
    let base_dir = sources.base_dir;
    let field = |problem: &str| GenerateError::Field {
        place: place.to_owned(),
        problem: problem.to_owned(),
    };
    match (&container.image, container.layer_files.is_empty(), container.layers.is_empty()) {
        (Some(directory), true, true) => {
            let path = base_dir.join(directory);
            let (source, unkept) = from_image(&path, container.image_tag.as_deref(), place, sources)?;
            unkept
                .into_iter()
                .for_each(|error| warn(format!("{place}: a root hash cannot be kept for the next time: {error}")));
            Ok(source)
        }
        (None, false, true) => {
            let mut source = Source::default();
            for path in &container.layer_files {
                let path = base_dir.join(path);
                let file = File::open(&path).map_err(|source| GenerateError::Read {
                    path: path.clone(),
                    source,
                })?;
                source.add(&KnownLayer::from(&hash(file, &path)?));
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
    fn add(&mut self, layer: &KnownLayer) {
        self.layers.push(layer.root_hash.to_string());
        self.notes.access_lists += layer.notes.access_lists;
        self.notes.times += layer.notes.times;
    }
}

/// The layers of an image, and the first failure to keep one of their root hashes.
fn from_image(
    path: &Path,
    pick: Option<&str>,
    place: &str,
    sources: &Sources<'_>,
) -> Result<(Source, Option<std::io::Error>), GenerateError> {
    let unusable = |source| GenerateError::Image {
        place: place.to_owned(),
        source,
    };
    let store = archive::open(path, place)?.asking(sources.platform.cloned());
    let mut unkept = None;
    let image = store.image(pick).map_err(unusable)?;
    let mut source = Source {
        image: image.config,
        has_image: true,
        ..Source::default()
    };
    for layer in &image.layers {
        let cache = sources.roots.zip(layer.blob);
        if let Some(known) = cache.and_then(|(roots, blob)| roots.known(blob, layer.diff_id)) {
            source.add(&known);
            continue;
        }
        let path = store.shown(layer);
        let converted = hash(store.layer(layer).map_err(unusable)?, &path)?;
        if converted.diff_id != layer.diff_id {
            return Err(GenerateError::DiffId { path });
        }
        let known = KnownLayer::from(&converted);
        if let Some((roots, blob)) = cache
            && let Err(error) = roots.keep(blob, layer.diff_id, &known)
        {
            unkept = unkept.or(Some(error));
        }
        source.add(&known);
    }
    Ok((source, unkept))
}

fn hash(layer: impl Read + Send, path: &Path) -> Result<layer::Converted, GenerateError> {
    layer::hash(layer, &layer::Limits::default()).map_err(|source| GenerateError::Layer {
        path: path.to_owned(),
        source,
    })
}
