//! The archive of `docker save` (moby, image/tarexport): `manifest.json` lists images with the names of their files.

use super::files::Files;
use super::{StoreError, StoredImage, layers};
use crate::document::parse;
use crate::limits::DOCUMENTS_MAX;
use crate::null::null_is_default;
use crate::offer::Offer;
use crate::select::{ChoiceError, Pick, exactly, fits};
use crate::{Config, Digest, ImageError, Platform};
use serde::Deserialize;
use std::path::Path;

/// One image of the list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    /// File of its config.
    config: String,
    /// References of the image.
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    /// Files of its layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

/// The guest's image of the list: the only one, or the one of a tag, a reference, or a config's digest, which Docker calls the image's id.
pub(super) fn image(files: &Files, list: &[u8], pick: &Pick, asked: Option<&Platform>) -> Result<StoredImage, StoreError> {
    let listed: Vec<Listed> = parse(list).map_err(|e| StoreError::Document(files.shown("manifest.json"), e))?;
    let choice = |error| StoreError::Choice(files.root().to_owned(), error);
    if listed.len() > DOCUMENTS_MAX {
        return Err(choice(ChoiceError::TooMany));
    }
    let (mut found, mut passed_over) = (Vec::<(Offer, Listed, Config)>::new(), Vec::new());
    for image in listed {
        let (digest, config) = config(files, &image.config)?;
        let offer = Offer {
            digest,
            names: image.repo_tags.iter().map(|name| name.as_str().into()).collect(),
            platform: Some(config.platform.clone()).filter(|platform| !platform.is_unnamed()),
            artefact: None,
            picked: pick.names(&image.repo_tags) || *pick == Pick::Digest(digest),
        };
        let other = asked.is_some() && !fits(&config.platform, asked, false);
        if !offer.picked || config.platform.is_foreign() || other {
            passed_over.push(offer);
        } else if !found.iter().any(|(other, ..)| other.digest == digest) {
            found.push((offer, image, config));
        }
    }
    let mut found = exactly(asked, found, |(offer, ..)| offer).into_iter();
    match (found.next(), found.next()) {
        (Some((_, image, config)), None) => {
            let layers = layers(config.diff_ids(), image.layers).map_err(|e| StoreError::Image(files.root().to_owned(), e))?;
            Ok(StoredImage {
                config: config.config,
                layers,
            })
        }
        (Some((first, ..)), Some((second, ..))) => {
            let choices = [first, second].into_iter().chain(found.map(|(offer, ..)| offer));
            Err(choice(ChoiceError::several(asked, choices.collect())))
        }
        (None, _) => Err(choice(ChoiceError::none(pick, asked, passed_over))),
    }
}

/// A config with its digest, which is in its file's name.
fn config(files: &Files, name: &str) -> Result<(Digest, Config), StoreError> {
    let bytes = files.document(name)?.ok_or_else(|| files.missing(name))?;
    let digest = Digest::of(&bytes);
    let stem = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stated = format!("sha256:{}", stem.trim_end_matches(".json")).parse::<Digest>();
    if stated.is_ok_and(|stated| stated != digest) {
        return Err(StoreError::Content(files.shown(name)));
    }
    let config = Config::parse(&bytes).map_err(|e| StoreError::Image(files.shown(name), ImageError::Document(e)))?;
    Ok((digest, config))
}
