//! Signed fragments as bytes from an annotation. Nothing here parses or verifies them; the guest does.

use agent_protocol::{
    LoadFragmentRequest,
    limits::{FRAGMENT_BYTES, FRAGMENTS},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Annotation of the sandbox: signed messages in base64, separated by colons, in the order in which they are loaded. An entry
/// may also be the document that `casemate policy fragment inject` prints, which names a media type.
pub const ANNOTATION: &str = "io.casemate.fragments";
/// Longest value of the annotation in bytes: two of the longest messages, or many of usual length.
pub const ANNOTATION_BYTES: usize = 2 * (FRAGMENT_BYTES * 4 / 3 + 4);

/// The document that injects a message.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    fragment: String,
    media_type: String,
}

/// Why the annotation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FragmentsError {
    /// An entry is not base64.
    #[error("entry {0} of annotation {ANNOTATION} is not base64")]
    Base64(usize, #[source] base64::DecodeError),
    /// An entry is an injection document, but not a valid one.
    #[error("entry {0} of annotation {ANNOTATION} is neither a signed message nor a document that injects one")]
    Document(usize, #[source] serde_json::Error),
    /// An entry is longer than the agent accepts.
    #[error("entry {entry} of annotation {ANNOTATION} has {bytes} bytes, more than {FRAGMENT_BYTES}")]
    Long {
        /// Number of the entry, from 1.
        entry: usize,
        /// Its length.
        bytes: usize,
    },
    /// More entries than one sandbox may have.
    #[error("annotation {ANNOTATION} has more than {FRAGMENTS} entries")]
    TooMany,
}

/// The requests that load the sandbox's fragments, in order.
///
/// # Errors
/// See [`FragmentsError`].
pub fn requests(annotations: &BTreeMap<String, String>) -> Result<Vec<LoadFragmentRequest>, FragmentsError> {
    let Some(list) = annotations.get(ANNOTATION) else {
        return Ok(Vec::new());
    };
    let entries = list.split(':').filter(|entry| !entry.trim().is_empty()).collect::<Vec<_>>();
    if entries.len() > FRAGMENTS {
        return Err(FragmentsError::TooMany);
    }
    entries.into_iter().enumerate().map(|(n, entry)| request(n + 1, entry)).collect()
}

fn request(entry: usize, text: &str) -> Result<LoadFragmentRequest, FragmentsError> {
    let decode = |text: &str| {
        // `base64` of coreutils wraps its lines.
        let packed: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        STANDARD.decode(packed).map_err(|e| FragmentsError::Base64(entry, e))
    };
    let bytes = decode(text)?;
    // A COSE message begins with a tag (0xd2), never like JSON.
    let (message, media_type) = if bytes.starts_with(b"{") {
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| FragmentsError::Document(entry, e))?;
        (decode(&document.fragment)?, document.media_type)
    } else {
        (bytes, String::new())
    };
    if message.len() > FRAGMENT_BYTES {
        return Err(FragmentsError::Long {
            entry,
            bytes: message.len(),
        });
    }
    Ok(LoadFragmentRequest {
        message,
        media_type,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Vec<LoadFragmentRequest>, FragmentsError> {
        requests(&BTreeMap::from([(ANNOTATION.to_owned(), value.to_owned())]))
    }

    #[test]
    fn messages_keep_their_order_and_may_name_a_media_type() {
        assert!(requests(&BTreeMap::new()).unwrap().is_empty());
        let document = format!(r#"{{"Fragment": "{}", "MediaType": "a/b"}}"#, STANDARD.encode(b"\xd2two"));
        let list = format!("{}\n:{}:", STANDARD.encode(b"\xd2one"), STANDARD.encode(document));
        let requests = of(&list).unwrap();
        let seen: Vec<_> = requests.iter().map(|r| (&r.message[..], r.media_type.as_str())).collect();
        assert_eq!(seen, [(&b"\xd2one"[..], ""), (b"\xd2two", "a/b")]);
    }

    #[test]
    fn unusable_entries_are_refused_with_their_number() {
        assert!(matches!(of("AAAA:*"), Err(FragmentsError::Base64(2, _))));
        assert!(matches!(of(&STANDARD.encode("{}")), Err(FragmentsError::Document(1, _))));
        let long = STANDARD.encode(vec![0; FRAGMENT_BYTES + 1]);
        assert!(matches!(of(&long), Err(FragmentsError::Long { entry: 1, .. })));
        assert!(matches!(of(&"AAAA:".repeat(FRAGMENTS + 1)), Err(FragmentsError::TooMany)));
    }
}
