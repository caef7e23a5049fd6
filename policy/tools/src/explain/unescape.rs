//! Escapes that logs and tools put around an error text: JSON's, once or several times over, and HTML's.

/// `text` without them. What is no escape stays; a decision is base64, which has none.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(['\\', '&']) {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let length = match escape(rest) {
            Some((character, length)) => {
                plain.push(character);
                length
            }
            None => {
                // The whole run of backslashes, each of which would be looked at again.
                let length = (rest.len() - rest.trim_start_matches('\\').len()).max(1);
                plain.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    plain.push_str(rest);
    plain
}

/// The escape at the beginning of `text`, and its length.
fn escape(text: &str) -> Option<(char, usize)> {
    let entities = [
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&quot;", '"'),
        ("&#34;", '"'),
        ("&#39;", '\''),
        ("&amp;", '&'),
    ];
    if let Some((entity, character)) = entities.iter().find(|(entity, _)| text.starts_with(entity)) {
        return Some((*character, entity.len()));
    }
    // JSON within JSON doubles the backslashes.
    let after = text.trim_start_matches('\\');
    let slashes = text.len() - after.len();
    let kind = after.chars().next().filter(|_| slashes > 0)?;
    match kind {
        '"' | '/' | '\'' => Some((kind, slashes + 1)),
        'n' | 'r' => Some(('\n', slashes + 1)),
        't' => Some(('\t', slashes + 1)),
        'u' => {
            let digits = after
                .get(1..5)
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            Some((character, slashes + 5))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_undone_however_deep() {
        for text in [
            "a < b > \"c\"",
            r#"a \u003c b \u003E \"c\""#,
            r#"a \\u003c b \\\u003e \\\"c\\\""#,
            "a &lt; b &gt; &quot;c&#34;",
        ] {
            assert_eq!(unescape(text), "a < b > \"c\"", "{text}");
        }
        assert_eq!(unescape("one\\ntwo"), "one\ntwo");
        for text in ["c:\\x \\u00 \\", "a & b", "\\ud800"] {
            assert_eq!(unescape(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", tricky in "[\\\\u&lt;0-9ä\"]{0,60}") {
            let _ = unescape(&text);
            let _ = unescape(&tricky);
        }
    }
}
