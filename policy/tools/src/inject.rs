//! What a host hands to a guest: fragments and other signed blobs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy_fragment::{Blob, BlobError};
use serde_json::json;

/// The document by which existing hosts inject a blob: `{"Fragment": BASE64, "MediaType": …}`. What a guest would refuse for
/// its form is refused here; whether its policy wants it, the guest says.
///
/// # Errors
/// The blob is not acceptable for this media type.
pub fn injection(media_type: &str, blob: &[u8]) -> Result<String, BlobError> {
    Blob::open(media_type, blob)?;
    Ok(json!({"Fragment": STANDARD.encode(blob), "MediaType": media_type}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_would_refuse_is_not_injected() {
        assert!(injection("", b"no fragment").is_err());
    }
}
