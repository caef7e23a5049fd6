//! Injection of fragments and other signed blobs into a guest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy_fragment::{Blob, BlobError};
use serde_json::json;

/// The document by which hcsshim injects a blob: `{"Fragment": BASE64, "MediaType": …}`. Blobs that a guest would refuse whatever its
/// policy are refused here.
///
/// # Errors
/// The blob is not valid for this media type.
pub fn injection(media_type: &str, blob: &[u8]) -> Result<String, BlobError> {
    Blob::open(media_type, blob)?;
    Ok(json!({"Fragment": STANDARD.encode(blob), "MediaType": media_type}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_blob_is_not_injected() {
        assert!(injection("", b"no fragment").is_err());
    }
}
