//! The choice of the guest's image among several: one rule for images in containerd and in files.
//!
//! ```text
//! loop { match search.wanted()? { Some(digest) => search.take(&document(digest)), None => break } }   search.finish()
//! ```
//! The search says which documents it needs, and the caller reads them. Indexes are followed to every manifest that may be the guest's:
//! an entry with a platform must name the guest's, and the config of each manifest has the last word. One image must remain. None, or
//! several that differ, is an error that lists what there is: nothing is guessed. Whoever makes a policy may ask for one platform among
//! those that guests run; whoever starts a container cannot.

use crate::document::{may_be_image, may_be_index};
use crate::limits::{DOCUMENTS_MAX, DOCUMENTS_MAX_BYTES, ENTRIES_MAX, INDEXES_MAX, NAME_MAX_BYTES};
use crate::offer::{Offer, Offers};
use crate::{Config, Descriptor, Digest, Document, DocumentError, Index, Manifest, Platform, Reference};
use std::collections::VecDeque;
use std::sync::Arc;

/// Marks attestations among the entries of an index (BuildKit).
const ATTESTATION: &str = "vnd.docker.reference.type";
/// Annotations that name an image: OCI's tag (annotations.md), and containerd's whole reference.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
/// Media types of image configs, OCI's and Docker's.
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Why no image is chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// A document cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// There is no image for the guest.
    #[error("it has no image for {wanted}; it has {offers}")]
    Platform {
        /// The platform that was asked for, or the guest's.
        wanted: Box<Platform>,
        /// What there is.
        offers: Offers,
    },
    /// Several images fit.
    #[error("it has several images for {wanted}, choose one by its {ways}: {offers}", ways = offers.ways())]
    Ambiguous {
        /// The platform that was asked for, or the guest's.
        wanted: Box<Platform>,
        /// What fits.
        offers: Offers,
    },
    /// Nothing has the name or digest that was asked for.
    #[error("it has no image {asked:?}; it has {offers}")]
    Unknown {
        /// Tag or digest.
        asked: String,
        /// What there is.
        offers: Offers,
    },
    /// An index entry names the guest's platform, the image's config another.
    #[error("its index says {index} of {manifest}, the image's config says {config}")]
    Contradiction {
        /// The manifest.
        manifest: Digest,
        /// Platform in the index.
        index: Box<Platform>,
        /// Platform in the config.
        config: Box<Platform>,
    },
    /// More indexes than [`INDEXES_MAX`].
    #[error("its manifest is more than {INDEXES_MAX} indexes away")]
    Nesting,
    /// More documents than [`DOCUMENTS_MAX`].
    #[error("more than {DOCUMENTS_MAX} of its documents may be the guest's image")]
    TooMany,
    /// More bytes in them than [`DOCUMENTS_MAX_BYTES`].
    #[error("the documents that lead to it have more than {DOCUMENTS_MAX_BYTES} bytes")]
    TooLong,
    /// More entries in its indexes than [`ENTRIES_MAX`].
    #[error("its indexes have more than {ENTRIES_MAX} entries")]
    Entries,
    /// A document that the choice needs is not there.
    #[error("document {0} is missing")]
    Missing(Digest),
}

impl ChoiceError {
    /// No image is left: what was asked for is for another platform, or is not there at all.
    pub(crate) fn none(pick: &Pick, asked: Option<&Platform>, passed_over: Vec<Offer>) -> Self {
        let (picked, others): (Vec<_>, Vec<_>) = passed_over.into_iter().partition(|offer| offer.picked);
        if *pick == Pick::Only || !picked.is_empty() {
            return Self::Platform {
                wanted: Box::new(asked.cloned().unwrap_or_else(Platform::guest)),
                offers: Offers(picked),
            };
        }
        Self::Unknown {
            asked: pick.shown(),
            offers: Offers(others),
        }
    }

    /// Several are left.
    pub(crate) fn several(asked: Option<&Platform>, offers: Vec<Offer>) -> Self {
        Self::Ambiguous {
            wanted: Box::new(asked.cloned().unwrap_or_else(Platform::guest)),
            offers: Offers(offers),
        }
    }
}

/// Whether an image of this platform may be the one: the platform that was asked for, otherwise what every guest runs. What is picked by its
/// digest need not be what every guest runs.
pub(crate) fn fits(platform: &Platform, asked: Option<&Platform>, by_digest: bool) -> bool {
    match asked {
        Some(asked) => platform.answers(asked),
        None => platform.is_guest() || by_digest && !platform.is_foreign(),
    }
}

/// Of several that answer, those that are called exactly as it was asked: `linux/amd64` is not `linux/amd64/v1` then, nor one with a version.
pub(crate) fn exactly<T>(asked: Option<&Platform>, mut found: Vec<T>, offer: impl Fn(&T) -> &Offer) -> Vec<T> {
    let Some(asked) = asked else { return found };
    let parts: [fn(&Platform) -> &String; 2] = [|platform| &platform.variant, |platform| &platform.os_version];
    for part in parts {
        let exact = |found: &T| offer(found).platform.as_ref().is_some_and(|platform| part(platform) == part(asked));
        if found.iter().any(exact) {
            found.retain(exact);
        }
    }
    found
}

/// What the caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The only image.
    Only,
    /// The image of a tag, or of a whole reference.
    Name(String),
    /// The image, or the index, of a digest.
    Digest(Digest),
}

impl From<Option<&str>> for Pick {
    /// `sha256:…`, `NAME@sha256:…`, a tag or a reference.
    fn from(text: Option<&str>) -> Self {
        let Some(text) = text else { return Pick::Only };
        let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest).parse();
        digest.map_or_else(|_| Pick::Name(text.to_owned()), Pick::Digest)
    }
}

impl Pick {
    /// Whether an image with one of these names is meant.
    pub(crate) fn names<T: AsRef<str>>(&self, names: &[T]) -> bool {
        match self {
            Pick::Only => true,
            Pick::Name(wanted) => names.iter().any(|name| same_name(name.as_ref(), wanted)),
            Pick::Digest(_) => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Pick::Only => String::new(),
            Pick::Name(name) => name.clone(),
            Pick::Digest(digest) => digest.to_string(),
        }
    }
}

/// Equal, equal when completed (`app` is `docker.io/library/app:latest`), or the tag of the other.
fn same_name(name: &str, wanted: &str) -> bool {
    let complete = |text: &str| text.parse::<Reference>().ok();
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    name == wanted || tag == Some(wanted) || complete(name).is_some_and(|name| complete(wanted) == Some(name))
}

/// The chosen image.
pub struct Chosen {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its config.
    pub config: Config,
}

/// The search for one image.
pub struct Search {
    pick: Pick,
    /// The platform, if it is not what every guest runs.
    asked: Option<Platform>,
    /// The `index.json` of a layout, until the first document is asked for.
    start: Option<Index>,
    waiting: VecDeque<Step>,
    reading: Option<Step>,
    found: Vec<(Offer, Chosen)>,
    passed_over: Vec<Offer>,
    missing: Option<Digest>,
    read: usize,
    read_bytes: usize,
    entries: usize,
}

/// What is known of a document before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its length in bytes, if the document that names it says it.
    pub size: Option<u64>,
    /// Whether it is a config: registries keep configs among the blobs, indexes and manifests apart.
    pub is_config: bool,
}

/// A document to read.
struct Step {
    /// Its digest.
    digest: Digest,
    /// Its length, if known.
    size: Option<u64>,
    /// Names of the image it belongs to: those of every index on the way, which are shared.
    names: Vec<Arc<str>>,
    /// Platform of the index entry that led here.
    platform: Option<Platform>,
    /// Whether the image is one that the caller asks for.
    picked: bool,
    /// Indexes on the way.
    depth: usize,
    /// The manifest and its digest, if the document is its config.
    manifest: Option<(Digest, Manifest)>,
}

impl Search {
    /// Starts at a document: an image's name in containerd, or the manifest of a `dir:`.
    pub fn document(digest: Digest, pick: Pick) -> Self {
        let picked = pick == Pick::Only || pick == Pick::Digest(digest);
        let step = Step {
            digest,
            size: None,
            names: Vec::new(),
            platform: None,
            picked,
            depth: 0,
            manifest: None,
        };
        Self::new(pick, [step].into())
    }

    /// Starts at the `index.json` of a layout.
    pub fn index(index: Index, pick: Pick) -> Self {
        Self {
            start: Some(index),
            ..Self::new(pick, VecDeque::new())
        }
    }

    /// Searches for an image of this platform alone; to be called before [`Self::wanted`].
    #[must_use]
    pub fn asking(self, asked: Option<Platform>) -> Self {
        Self { asked, ..self }
    }

    fn new(pick: Pick, waiting: VecDeque<Step>) -> Self {
        Self {
            pick,
            asked: None,
            start: None,
            waiting,
            reading: None,
            found: Vec::new(),
            passed_over: Vec::new(),
            missing: None,
            read: 0,
            read_bytes: 0,
            entries: 0,
        }
    }

    /// The digest of the next document to read, of which [`Self::take`] or [`Self::absent`] is told.
    ///
    /// # Errors
    /// Too many documents, or entries of indexes.
    pub fn wanted(&mut self) -> Result<Option<Digest>, ChoiceError> {
        if let Some(index) = self.start.take() {
            self.enter(index, None)?;
        }
        self.reading = self.waiting.pop_front();
        self.read += usize::from(self.reading.is_some());
        match &self.reading {
            Some(_) if self.read > DOCUMENTS_MAX => Err(ChoiceError::TooMany),
            step => Ok(step.as_ref().map(|step| step.digest)),
        }
    }

    /// What is known of the document that [`Self::wanted`] asked for.
    pub fn about_wanted(&self) -> Option<Wanted> {
        self.reading.as_ref().map(|step| Wanted {
            size: step.size,
            is_config: step.manifest.is_some(),
        })
    }

    /// Takes the document that [`Self::wanted`] asked for. The caller has checked its digest.
    ///
    /// # Errors
    /// The document cannot be used.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), ChoiceError> {
        let Some(step) = self.reading.take() else { return Ok(()) };
        self.read_bytes += bytes.len();
        if self.read_bytes > DOCUMENTS_MAX_BYTES {
            return Err(ChoiceError::TooLong);
        }
        if let Some((digest, manifest)) = step.manifest {
            let config = Config::parse(bytes)?;
            return self.judge(Chosen { digest, manifest, config }, step.names, step.platform);
        }
        match Document::parse(bytes)? {
            Document::Index(_) if step.depth >= INDEXES_MAX => Err(ChoiceError::Nesting),
            Document::Index(index) => self.enter(index, Some(step)),
            Document::Manifest(manifest) => {
                self.open(manifest, step);
                Ok(())
            }
        }
    }

    /// The document is not there: containerd fetches nothing for other platforms, and of several equal images only one.
    pub fn absent(&mut self) {
        let step = self.reading.take();
        self.missing = self.missing.or(step.map(|step| step.digest));
    }

    /// The image.
    ///
    /// # Errors
    /// There is none, or not only one.
    pub fn finish(self) -> Result<Chosen, ChoiceError> {
        let asked = self.asked.as_ref();
        let mut found = exactly(asked, self.found, |(offer, _)| offer).into_iter();
        match (found.next(), self.missing) {
            (Some((_, chosen)), _) if found.len() == 0 => Ok(chosen),
            (Some((first, _)), _) => {
                let choices = [first].into_iter().chain(found.map(|(offer, _)| offer));
                Err(ChoiceError::several(asked, choices.collect()))
            }
            (None, Some(missing)) => Err(ChoiceError::Missing(missing)),
            (None, None) => Err(ChoiceError::none(&self.pick, asked, self.passed_over)),
        }
    }

    /// Puts the entries of an index that may lead to the image in its place in the queue.
    fn enter(&mut self, index: Index, parent: Option<Step>) -> Result<(), ChoiceError> {
        self.entries += index.manifests.len();
        if self.entries > ENTRIES_MAX {
            return Err(ChoiceError::Entries);
        }
        let mut steps = Vec::new();
        for entry in index.manifests {
            if !is_image(&entry) {
                continue;
            }
            let mut names = parent.as_ref().map(|parent| parent.names.clone()).unwrap_or_default();
            let own = NAMES.iter().filter_map(|name| entry.annotations.get(*name));
            names.extend(own.filter(|name| name.len() <= NAME_MAX_BYTES).map(|name| Arc::from(name.as_str())));
            let by_digest = self.pick == Pick::Digest(entry.digest);
            let picked = by_digest || parent.as_ref().is_some_and(|parent| parent.picked) || self.pick.names(&names);
            let platform = entry.platform.filter(|platform| !platform.is_unnamed());
            let fits = platform
                .as_ref()
                .is_none_or(|platform| fits(platform, self.asked.as_ref(), by_digest));
            // An index on the way may lead to the digest, whatever its own platform.
            let on_the_way = matches!(self.pick, Pick::Digest(_)) && !picked && may_be_index(&entry.media_type);
            if picked && fits || on_the_way {
                steps.push(Step {
                    digest: entry.digest,
                    size: entry.size,
                    names,
                    platform,
                    picked,
                    depth: parent.as_ref().map_or(0, |parent| parent.depth + 1),
                    manifest: None,
                });
            } else {
                self.passed_over.push(Offer {
                    digest: entry.digest,
                    names,
                    platform,
                    artefact: None,
                    picked,
                });
            }
        }
        for step in steps.into_iter().rev() {
            self.waiting.push_front(step);
        }
        Ok(())
    }

    /// Asks for the config of a manifest that may be the image.
    fn open(&mut self, manifest: Manifest, step: Step) {
        let artefact = artefact(&manifest);
        if !step.picked || artefact.is_some() {
            self.passed_over.push(Offer {
                digest: step.digest,
                names: step.names,
                platform: step.platform,
                artefact,
                picked: step.picked,
            });
            return;
        }
        self.waiting.push_front(Step {
            digest: manifest.config.digest,
            size: manifest.config.size,
            manifest: Some((step.digest, manifest)),
            ..step
        });
    }

    /// Decides on an image by its config.
    fn judge(&mut self, image: Chosen, names: Vec<Arc<str>>, index: Option<Platform>) -> Result<(), ChoiceError> {
        let platform = image.config.platform.clone();
        if platform.is_foreign() {
            if let Some(index) = index {
                return Err(ChoiceError::Contradiction {
                    manifest: image.digest,
                    index: Box::new(index),
                    config: Box::new(platform),
                });
            }
            self.pass_over(image.digest, names, platform);
            return Ok(());
        }
        // Where the index is silent, the config says which platform it is.
        if index.is_none() && self.asked.is_some() && !fits(&platform, self.asked.as_ref(), false) {
            self.pass_over(image.digest, names, platform);
            return Ok(());
        }
        // The same config means the same layers, however they are compressed.
        let twin = |(_, other): &(Offer, Chosen)| other.manifest.config.digest == image.manifest.config.digest;
        if !self.found.iter().any(twin) {
            let offer = Offer {
                digest: image.digest,
                names,
                platform: index.or(Some(platform).filter(|platform| !platform.is_unnamed())),
                artefact: None,
                picked: true,
            };
            self.found.push((offer, image));
        }
        Ok(())
    }

    fn pass_over(&mut self, digest: Digest, names: Vec<Arc<str>>, platform: Platform) {
        self.passed_over.push(Offer {
            digest,
            names,
            platform: Some(platform),
            artefact: None,
            picked: true,
        });
    }
}

/// Whether an index entry may lead to an image.
fn is_image(entry: &Descriptor) -> bool {
    may_be_image(&entry.media_type)
        && !entry.annotations.contains_key(ATTESTATION)
        && !entry.platform.as_ref().is_some_and(Platform::is_unknown)
        && (entry.artifact_type.is_empty() || CONFIG_TYPES.contains(&entry.artifact_type.as_str()))
}

/// The type of a manifest that is no image: signatures, charts and the like are stored as manifests too.
fn artefact(manifest: &Manifest) -> Option<String> {
    let config = Some(&manifest.config.media_type).filter(|kind| !kind.is_empty() && !CONFIG_TYPES.contains(&kind.as_str()));
    let layer = manifest.layers.iter().map(|layer| &layer.media_type);
    let mut odd = layer.filter(|kind| !kind.is_empty() && !kind.contains("tar"));
    let stated = Some(&manifest.artifact_type).filter(|kind| !kind.is_empty() && !CONFIG_TYPES.contains(&kind.as_str()));
    stated.or(config).or_else(|| odd.next()).cloned()
}
