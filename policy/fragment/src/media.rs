//! Media types of signed blobs, checked against the signed content type.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The kinds of signed blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// A policy fragment; also if the media type is empty.
    Fragment,
    /// Keys of transparency ledgers.
    TrustList,
    /// Reference values of the trusted computing base, kept for verifiers.
    TcbReference,
    /// Reference values of the platform, kept for verifiers.
    PlatformReference,
}

/// Names of the media types.
const NAMES: [(&str, MediaType); 4] = [
    ("application/cose-x509+rego", MediaType::Fragment),
    ("application/vnd.transparency-trust-list.v1+cose", MediaType::TrustList),
    ("application/vnd.tcb-reference-info.v1+cose", MediaType::TcbReference),
    ("application/vnd.platform-reference-info.v1+cose", MediaType::PlatformReference),
];

/// The media type is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot inject fragment blob with unsupported media type {0:?}")]
pub struct MediaTypeError(String);

impl FromStr for MediaType {
    type Err = MediaTypeError;

    fn from_str(name: &str) -> Result<Self, MediaTypeError> {
        match name {
            "" => Ok(Self::Fragment),
            name => Self::known(name).ok_or_else(|| MediaTypeError(name.to_owned())),
        }
    }
}

impl MediaType {
    fn known(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Whether a blob of the signed content type may be used as this kind.
    ///
    /// The host chooses the media type and is not trusted; the content type is signed. Blobs without a content type, or with an unknown
    /// one such as `application/unknown+rego`, are accepted, as in hcsshim.
    pub fn agrees_with(self, content_type: Option<&str>) -> bool {
        content_type.and_then(Self::known).is_none_or(|signed| signed == self)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_must_not_contradict_the_content_type() {
        let kind: MediaType = "application/vnd.transparency-trust-list.v1+cose".parse().unwrap();
        assert!(!kind.agrees_with(Some("application/cose-x509+rego")));
        assert!(kind.agrees_with(Some("application/unknown+cbor")) && kind.agrees_with(None));
        assert_eq!("".parse(), Ok(MediaType::Fragment));
        assert_eq!(
            "text/plain".parse::<MediaType>().unwrap_err().to_string(),
            "cannot inject fragment blob with unsupported media type \"text/plain\""
        );
        assert_eq!(MediaType::TrustList.to_string().parse(), Ok(MediaType::TrustList));
    }
}
