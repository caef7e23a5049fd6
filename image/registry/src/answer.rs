//! Answers of servers, as far as they are read: never more than a limit, and their words without secrets and control characters.

use crate::secret::without;
use crate::transport::{ANSWER_WAIT, TransportError};
use reqwest::Response;
use serde_json::Value;
use zeroize::Zeroizing;

/// Most bytes of an answer that is an error.
const ERROR_MAX_BYTES: usize = 64 << 10;
/// Most messages of one answer, and most characters of each.
const MESSAGES_MAX: usize = 3;
const MESSAGE_MAX: usize = 200;

/// A whole body of at most `most` bytes; `None` if it is longer.
///
/// # Errors
/// The connection fails, or the server stops sending.
pub(crate) async fn body(response: &mut Response, most: usize) -> Result<Option<Vec<u8>>, TransportError> {
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(TransportError::new)? {
            if bytes.len() + chunk.len() > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    };
    tokio::time::timeout(ANSWER_WAIT, read).await.map_err(|_| TransportError::Stalled)?
}

/// What the server says of its refusal, in the forms that registries and token services use. It may quote what it was sent, so that these
/// secrets are removed.
pub(crate) async fn message(response: &mut Response, secrets: &[Zeroizing<String>]) -> Option<String> {
    let bytes = body(response, ERROR_MAX_BYTES).await.ok().flatten()?;
    words(&bytes, secrets)
}

fn words(bytes: &[u8], secrets: &[Zeroizing<String>]) -> Option<String> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    // Of a text that is cut or escaped, no secret could be removed that it has in part or in another form.
    let shown = |text: &str| plain(&without(text, secrets));
    let text = |value: &Value, keys: &[&str]| {
        keys.iter()
            .find_map(|key| value[*key].as_str().filter(|text| !text.is_empty()).map(shown))
    };
    let errors = value["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let messages: Vec<String> = errors
        .iter()
        .filter_map(|error| text(error, &["message", "code"]))
        .take(MESSAGES_MAX)
        .collect();
    match messages.is_empty() {
        false => Some(messages.join("; ")),
        true => text(&value, &["error_description", "details", "message", "error"]),
    }
}

/// Cut, and with escapes in place of control characters.
pub(crate) fn plain(text: &str) -> String {
    let visible = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().take(MESSAGE_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_quoted_without_control_characters() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"not you"},{"code":"UNKNOWN"}]}"#,
                Some("not you; UNKNOWN"),
            ),
            (r#"{"errors":[]}"#, None),
            (r#"{"error":"invalid_grant","error_description":"too old"}"#, Some("too old")),
            (
                r#"{"details":"incorrect username or password"}"#,
                Some("incorrect username or password"),
            ),
            (r#"{"message":"a\u001b[31m\nb"}"#, Some("a\\u{1b}[31m\\nb")),
            ("<html>", None),
            (r#"{"errors":{"message":3}}"#, None),
        ] {
            assert_eq!(words(body.as_bytes(), &[]).as_deref(), expected, "{body}");
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(1000));
        assert_eq!(words(long.as_bytes(), &[]).unwrap().len(), MESSAGE_MAX);
    }

    #[test]
    fn a_secret_is_removed_before_words_are_cut_and_escaped() {
        // No eight characters of it occur twice, and one is a control character.
        let secret: String = (0..100).map(|number| format!("s{number:03}\t")).collect();
        let secrets = [Zeroizing::new(secret.clone())];
        for before in [0, 1, 100, 150, 190, 198] {
            let body = serde_json::json!({ "errors": [{ "message": format!("{}{secret}", "x".repeat(before)) }, { "message": secret }] });
            let said = words(body.to_string().as_bytes(), &secrets).unwrap();
            assert!(said.starts_with(&"x".repeat(before)) && said.ends_with("; [secret]"), "{said}");
            assert!(!said.contains("s000"), "{said}");
        }
    }
}
