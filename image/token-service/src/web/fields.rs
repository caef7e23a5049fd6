//! The fields of a form or of a query, within limits.

use zeroize::Zeroizing;

/// Most fields of one form.
const FIELDS_MAX: usize = 32;
/// Longest value in bytes; longer ones count as absent.
const VALUE_MAX_BYTES: usize = 2048;

/// Names with their values, one of which may be a password; the first of each name counts.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    /// Reads what a browser sends.
    pub(super) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text).take(FIELDS_MAX);
        let short = pairs.filter(|(name, value)| name.len().max(value.len()) <= VALUE_MAX_BYTES);
        Self(
            short
                .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())))
                .collect(),
        )
    }

    /// The value of a field; empty where it is absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The value without spaces around it, which nobody means.
    pub(super) fn trimmed(&self, name: &str) -> &str {
        self.get(name).trim()
    }

    /// Whether a box was ticked.
    pub(super) fn ticked(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_limited() {
        let fields = Fields::parse(b"a=1+%26&a=2&b=%20x%20&c=&%zz");
        assert_eq!((fields.get("a"), fields.trimmed("b"), fields.get("d")), ("1 &", "x", ""));
        assert!(!fields.ticked("c") && fields.ticked("a"));
        let long = format!("a={}&b=1", "x".repeat(VALUE_MAX_BYTES + 1));
        assert_eq!(Fields::parse(long.as_bytes()).get("a"), "");
        let many = "x=1&".repeat(FIELDS_MAX) + "y=1";
        assert_eq!(Fields::parse(many.as_bytes()).get("y"), "");
    }
}
