//! Text that no message shows and that memory does not keep: passwords and tokens.

use std::fmt;
use zeroize::Zeroizing;

/// A password or a token. `Debug` does not show it, there is no `Display`, and dropping it overwrites it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text; the caller has no other copy of it.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Replaces every occurrence of a secret in a text that somebody else wrote, such as a registry that repeats what it was sent.
pub(crate) fn without<'a>(mut text: String, secrets: impl Iterator<Item = &'a str>) -> String {
    /// Shorter ones would be found in words by chance, and then removing them would show them.
    const MIN_BYTES: usize = 3;
    for secret in secrets.filter(|secret| secret.len() >= MIN_BYTES) {
        if text.contains(secret) {
            text = text.replace(secret, "[secret]");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[secret] Some([secret])");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn what_others_repeat_is_removed() {
        let shown = without(
            "no hunter2, no aHVudGVyMg".to_owned(),
            ["hunter2", "aHVudGVyMg", "", "n"].into_iter(),
        );
        assert_eq!(shown, "no [secret], no [secret]");
    }
}
