//! Text that no message shows and that memory does not keep: passwords and tokens.

use std::cmp::Reverse;
use std::fmt;
use url::form_urlencoded::byte_serialize;
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

/// Replaces every occurrence of a secret, as it is or as a form has it, in a text that somebody else wrote, such as a registry that repeats
/// what it was sent.
pub(crate) fn without(text: &str, secrets: &[Zeroizing<String>]) -> String {
    /// Shorter ones would be found in words by chance, and then removing them would show them.
    const MIN_BYTES: usize = 3;
    let in_form = |secret: &Zeroizing<String>| Zeroizing::new(byte_serialize(secret.as_bytes()).collect::<String>());
    let long = secrets.iter().filter(|secret| secret.len() >= MIN_BYTES);
    let mut forms: Vec<_> = long.flat_map(|secret| [secret.clone(), in_form(secret)]).collect();
    // One that is a part of another would leave the rest of that.
    forms.sort_by_key(|secret| Reverse(secret.len()));
    let replaced = |text: String, secret: &Zeroizing<String>| text.replace(secret.as_str(), "[secret]");
    forms.iter().fold(text.to_owned(), replaced)
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
        let secrets = ["hunter2", "hunter2+aHVudGVyMg==", "", "n"].map(|secret| Zeroizing::new(secret.to_owned()));
        let shown = without("no hunter2, no hunter2+aHVudGVyMg==, nor t=hunter2%2BaHVudGVyMg%3D%3D", &secrets);
        assert_eq!(shown, "no [secret], no [secret], nor t=[secret]");
    }
}
