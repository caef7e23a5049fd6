//! The forms in which users carry a policy: its text, base64 of the text (annotations, `ccePolicy`), and base64 of the text's gzip.

use std::io::Read;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use policy::MAX_POLICY_BYTES;
use thiserror::Error;

/// Standard and URL-safe base64, padded or not.
const FORGIVING: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);
/// First bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why bytes are no policy in any of these forms.
#[derive(Debug, Error)]
pub enum TextError {
    /// Neither UTF-8 text nor gzip.
    #[error("it is neither text nor gzip")]
    NoText,
    /// gzip that is damaged, or of more than a policy.
    #[error("its gzip cannot be decompressed to at most {MAX_POLICY_BYTES} bytes")]
    Gzip,
    /// Only characters of base64, which no Rego text has, but they do not decode.
    #[error("it looks like base64 and cannot be decoded: part of it may be missing")]
    Base64(#[source] base64::DecodeError),
    /// Base64 of something else.
    #[error("it is base64, but not of a policy")]
    NoPolicy,
}

/// The text of a policy, or of a fragment, out of any of its forms. A text is returned as it is, byte for byte: its digest counts.
///
/// # Errors
/// It is base64 or gzip, but not of a policy.
pub fn policy_text(bytes: Vec<u8>) -> Result<String, TextError> {
    let text = unpacked(bytes)?;
    let Some(packed) = base64_of(&text) else { return Ok(text) };
    let engine = if packed.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let text = unpacked(engine.decode(packed).map_err(TextError::Base64)?).map_err(|_| TextError::NoPolicy)?;
    // The old form of policies is JSON.
    let is_policy = text.contains("package") || text.trim_start().starts_with('{');
    is_policy.then_some(text).ok_or(TextError::NoPolicy)
}

fn unpacked(bytes: Vec<u8>) -> Result<String, TextError> {
    if !bytes.starts_with(&GZIP) {
        return String::from_utf8(bytes).map_err(|_| TextError::NoText);
    }
    let mut text = String::new();
    let content = layer::decompress(bytes.as_slice(), &layer::Limits::default()).map_err(|_| TextError::Gzip)?;
    let read = content.take(MAX_POLICY_BYTES as u64 + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length <= MAX_POLICY_BYTES => Ok(text),
        _ => Err(TextError::Gzip),
    }
}

/// The characters of base64 in `text`, if it has no others but quotes around it, line ends, and the indentation of lines. Rego has a
/// blank after `package`, JSON has braces.
fn base64_of(text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text);
    let rego = text
        .strip_prefix("package")
        .is_some_and(|rest| rest.starts_with(char::is_whitespace));
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    let packed: String = text.lines().map(str::trim).collect();
    (!rego && !packed.is_empty() && packed.chars().all(in_base64)).then_some(packed)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    const REGO: &str = "package policy\n\napi_version := \"0.12.0\" # >>>???\n";

    fn text(form: &str) -> Result<String, TextError> {
        policy_text(form.as_bytes().to_vec())
    }

    #[test]
    fn every_form_gives_the_text_byte_for_byte() {
        let packed = STANDARD.encode(REGO);
        let (first, second) = packed.split_at(20);
        for form in [
            REGO.to_owned(),
            packed.clone(),
            format!("{packed}\n"),
            format!("  {first}\r\n  {second}\r\n"),
            format!("\"{packed}\"\n"),
            format!("\u{feff}{packed}"),
            packed.trim_end_matches('=').to_owned(),
            URL_SAFE_NO_PAD.encode(REGO),
        ] {
            assert_eq!(text(&form).unwrap(), REGO, "{form}");
        }
        // Bytes of a text that is no base64 stay as they are.
        for rego in ["\u{feff}package policy\r\n", "package\npolicy\n", "package policy", "", "\n"] {
            assert_eq!(text(rego).unwrap(), rego);
        }
        assert_eq!(text(&STANDARD.encode("{\"allow_all\":true}")).unwrap(), "{\"allow_all\":true}");
    }

    #[test]
    fn gzip_is_unpacked_within_a_limit() {
        // `printf 'package policy\n' | gzip -n`
        let gzip = "H4sIAAAAAAAAAytITM5OTE9VKMjPyUyu5AIAdyjYPA8AAAA=";
        assert_eq!(text(gzip).unwrap(), "package policy\n");
        assert_eq!(policy_text(STANDARD.decode(gzip).unwrap()).unwrap(), "package policy\n");
        assert!(matches!(policy_text(vec![0x1f, 0x8b, 0]), Err(TextError::Gzip)));
    }

    #[test]
    fn base64_of_something_else_is_never_taken_for_a_text() {
        let packed = STANDARD.encode(REGO);
        assert!(matches!(text(&packed[..5]), Err(TextError::Base64(_))));
        assert!(matches!(text(&STANDARD.encode("something else")), Err(TextError::NoPolicy)));
        assert!(matches!(text(&STANDARD.encode(&packed)), Err(TextError::NoPolicy)));
        assert!(matches!(policy_text(vec![0xff, 0xfe, 0]), Err(TextError::NoText)));
    }

    proptest! {
        #[test]
        fn what_has_blanks_is_returned_as_it_is(rego in "[a-z]{1,9} [a-z][a-zA-Z0-9:=\" \n]{0,80}x") {
            prop_assert_eq!(text(&rego).unwrap(), rego);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = policy_text(bytes);
        }
    }
}
