//! The policy as bytes from an annotation or a file, with their digest. Nothing here parses Rego.

use crate::config::Config;
use agent_protocol::{OPEN_DOOR, limits::POLICY_BYTES};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io, io::Read, path::PathBuf};

/// Annotation: base64 of the Rego text or of its gzip.
const POLICY: &str = "io.casemate.policy";
/// hcsshim's annotation: base64 of the text.
const HCSSHIM_POLICY: &str = "io.microsoft.virtualmachine.lcow.securitypolicy";
/// Every annotation that may carry a policy.
pub const ANNOTATIONS: [&str; 2] = [POLICY, HCSSHIM_POLICY];
/// Hex digits of a root hash.
const ROOT_HASH_DIGITS: usize = 64;
/// First bytes of a gzip member (RFC 1952 2.3.1); no Rego text begins with them.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A policy as it is sent to the agent.
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// The Rego text.
    pub text: Vec<u8>,
    /// Its SHA-256, which becomes the guest's host data.
    pub digest: [u8; 32],
}

/// Why a sandbox has no usable policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyTextError {
    /// The node requires a policy and the sandbox has none.
    #[error("this node requires a policy: give one in annotation {POLICY}")]
    Required,
    /// Not base64.
    #[error("annotation {0} is not base64")]
    Base64(&'static str, #[source] base64::DecodeError),
    /// Begins like gzip, but cannot be decompressed.
    #[error("annotation {0} is not whole gzip data")]
    Gzip(&'static str, #[source] io::Error),
    /// Longer than the agent accepts.
    #[error("the policy is longer than {POLICY_BYTES} bytes")]
    Long,
    /// The text is empty.
    #[error("the policy is empty")]
    Empty,
    /// The two annotations carry different texts.
    #[error("annotations {POLICY} and {HCSSHIM_POLICY} carry different policies")]
    Ambiguous,
    /// The configured file cannot be read.
    #[error("cannot read the policy {}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl PolicyText {
    /// The sandbox's policy, else the configured file's, else the text that allows everything, unless the node requires a policy.
    ///
    /// # Errors
    /// See [`PolicyTextError`].
    pub fn choose(annotations: &BTreeMap<String, String>, config: &Config) -> Result<Self, PolicyTextError> {
        let ours = annotations.get(POLICY).map(|text| decode(POLICY, text)).transpose()?;
        let hcsshim = annotations
            .get(HCSSHIM_POLICY)
            .map(|text| decode(HCSSHIM_POLICY, text))
            .transpose()?;
        let text = match (ours, hcsshim, &config.policy_file) {
            (Some(a), Some(b), _) if a != b => return Err(PolicyTextError::Ambiguous),
            (Some(text), _, _) | (None, Some(text), _) => text,
            (None, None, Some(path)) => fs::read(path).map_err(|e| PolicyTextError::File(path.clone(), e))?,
            (None, None, None) if config.requires_policy() => return Err(PolicyTextError::Required),
            (None, None, None) => OPEN_DOOR.as_bytes().to_vec(),
        };
        match text.len() {
            0 => Err(PolicyTextError::Empty),
            n if n > POLICY_BYTES => Err(PolicyTextError::Long),
            _ => Ok(Self {
                digest: Sha256::digest(&text).into(),
                text,
            }),
        }
    }

    /// Whether it names root hashes of layers, as far as can be told without parsing it: they are quoted strings of 64 hex digits. The
    /// guest decides; this is for a message that comes before a conversion in vain.
    pub fn names_root_hashes(&self) -> bool {
        let is_hash = |text: &[u8]| text.len() == ROOT_HASH_DIGITS && text.iter().all(u8::is_ascii_hexdigit);
        self.text.split(|byte| *byte == b'"').any(is_hash)
    }
}

fn decode(key: &'static str, annotation: &str) -> Result<Vec<u8>, PolicyTextError> {
    // `base64` of coreutils wraps its lines.
    let packed: Vec<u8> = annotation.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(packed).map_err(|e| PolicyTextError::Base64(key, e))?;
    if !bytes.starts_with(&GZIP_MAGIC) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let limit = POLICY_BYTES as u64 + 1;
    GzDecoder::new(bytes.as_slice())
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|e| PolicyTextError::Gzip(key, e))?;
    if text.len() > POLICY_BYTES {
        Err(PolicyTextError::Long)
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    const REGO: &str = "package policy\nallow := true\n";

    fn choose(pairs: &[(&str, String)], config: &Config) -> Result<PolicyText, PolicyTextError> {
        PolicyText::choose(&pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(), config)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_digest_is_of_the_text_and_not_of_its_encoding() {
        let plain = choose(&[(POLICY, STANDARD.encode(REGO))], &Config::default()).unwrap();
        let packed = choose(&[(POLICY, STANDARD.encode(gzip(REGO.as_bytes())))], &Config::default()).unwrap();
        let hcsshim = choose(&[(HCSSHIM_POLICY, format!("{}\n", STANDARD.encode(REGO)))], &Config::default()).unwrap();
        assert_eq!(plain.text, REGO.as_bytes());
        assert_eq!(plain.digest, <[u8; 32]>::from(Sha256::digest(REGO)));
        assert!(plain == packed && plain == hcsshim);
    }

    #[test]
    fn without_a_policy_the_configuration_decides() {
        assert_eq!(choose(&[], &Config::default()).unwrap().text, OPEN_DOOR.as_bytes());
        let strict = Config {
            require_policy: Some(true),
            ..Config::default()
        };
        assert!(matches!(choose(&[], &strict), Err(PolicyTextError::Required)));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.rego");
        fs::write(&file, REGO).unwrap();
        let configured = Config {
            policy_file: Some(file),
            ..strict
        };
        assert_eq!(choose(&[], &configured).unwrap().text, REGO.as_bytes());
    }

    #[test]
    fn root_hashes_are_seen_and_other_digests_are_not() {
        let named = |text: &str| {
            let policy = choose(&[(POLICY, STANDARD.encode(text))], &Config::default()).unwrap();
            policy.names_root_hashes()
        };
        let hash = "4e".repeat(32);
        assert!(named(&format!(r#"containers := [{{"layers": ["{hash}"], "command": ["sh"]}}]"#)));
        assert!(named(&format!("layer := \"{}\"", hash.to_uppercase())));
        assert!(!choose(&[], &Config::default()).unwrap().names_root_hashes());
        // An image's digest in a comment, a text that holds one, and one digit less.
        for text in [
            format!("# image a@sha256:{hash}\n{REGO}"),
            format!("x := \"sha256:{hash}\""),
            format!("x := \"{}\"", &hash[1..]),
        ] {
            assert!(!named(&text), "{text}");
        }
    }

    #[test]
    fn unusable_policies_are_refused() {
        let bad = |value: String| choose(&[(POLICY, value)], &Config::default());
        assert!(matches!(bad("*".into()), Err(PolicyTextError::Base64(..))));
        assert!(matches!(bad(String::new()), Err(PolicyTextError::Empty)));
        assert!(matches!(bad(STANDARD.encode([0x1f, 0x8b, 0])), Err(PolicyTextError::Gzip(..))));
        assert!(matches!(
            bad(STANDARD.encode(gzip(&vec![b'a'; POLICY_BYTES + 1]))),
            Err(PolicyTextError::Long)
        ));
        let two = choose(
            &[(POLICY, STANDARD.encode("a")), (HCSSHIM_POLICY, STANDARD.encode("b"))],
            &Config::default(),
        );
        assert!(matches!(two, Err(PolicyTextError::Ambiguous)));
    }
}
