//! What there is to choose from, as messages list it.

use crate::{Digest, Platform};
use std::fmt;
use std::sync::Arc;

/// Most offers that a message lists.
const LISTED_MAX: usize = 12;
/// Longest name or type that a message shows, in characters.
const SHOWN_MAX: usize = 120;

/// An image, index or artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Digest of its manifest, or of its config where there is no manifest.
    pub digest: Digest,
    /// Its tags and references.
    pub names: Vec<Arc<str>>,
    /// Its platform, if it has one.
    pub platform: Option<Platform>,
    /// What it is, if it is no image.
    pub artefact: Option<String>,
    /// Whether it has the name or digest that was asked for.
    pub picked: bool,
}

/// Several offers. Names are their author's, so they are shown with escapes and not at full length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers(pub Vec<Offer>);

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(SHOWN_MAX).collect::<String>();
        for name in &self.names {
            write!(f, "{:?} ", short(name))?;
        }
        if let Some(kind) = &self.artefact {
            write!(f, "an artefact of type {:?} ", short(kind))?;
        }
        if let Some(platform) = &self.platform {
            write!(f, "{platform} ")?;
        }
        write!(f, "{}", self.digest)
    }
}

impl Offers {
    /// How one of them can be chosen.
    pub(crate) fn ways(&self) -> &'static str {
        let differ = self.0.windows(2).any(|pair| pair[0].platform != pair[1].platform);
        match differ {
            true => "tag, its digest, or for a policy its --platform",
            false => "tag or digest",
        }
    }
}

impl fmt::Display for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none at all");
        }
        let listed: Vec<String> = self.0.iter().take(LISTED_MAX).map(Offer::to_string).collect();
        f.write_str(&listed.join(", "))?;
        match self.0.len().saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
