//! The pattern of a protection rule: a repository's whole path, in which `*` stands for any run of characters.

use std::fmt;

/// A pattern as it is matched: the whole path, case-insensitive, `*` is any run, empty or with `/` in it; every other character
/// stands for itself. Any text is a pattern; what a rule may contain is decided by [`crate::Rule::check`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: String,
    folded: String,
}

impl PathPattern {
    /// The pattern that a text is.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            folded: text.to_ascii_lowercase(),
        }
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What every matching path begins with, and whether a `*` follows; without one it is the only matching path.
    pub fn prefix(&self) -> (&str, bool) {
        match self.folded.split_once('*') {
            Some((prefix, _)) => (prefix, true),
            None => (&self.folded, false),
        }
    }

    /// Whether the pattern matches the path. Names of repositories are lower case already.
    ///
    /// What is before the first `*` and after the last has its place; each part between takes the first place that it finds, which
    /// leaves the most to those after it. So nobody's pattern makes a request slow: the time is linear in both lengths.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = self.folded.split('*');
        let Some(rest) = parts.next().and_then(|first| path.strip_prefix(first)) else {
            return false;
        };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        let Some(mut rest) = rest.strip_suffix(last) else { return false };
        parts.all(|part| {
            let found = rest.find(part);
            rest = found.map_or("", |at| &rest[at + part.len()..]);
            found.is_some()
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_are_any_run_and_the_rest_is_literal() {
        for (pattern, path, expected) in [
            ("g/a", "g/a", true),
            ("g/a", "g/a/b", false),
            ("g/a*", "g/a/b/c", true),
            ("g/a/*", "g/a", false),
            ("g/*z", "g/a/b/z", true),
            ("g/**x**", "g/x", true),
            ("g/a_b", "g/axb", false),
            ("g/a.*", "g/axb", false),
            ("G/App", "g/app", true),
            ("*a*b*a*", "xaba", true),
            ("*a*b*a*", "xab", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(PathPattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_regular_expression(pattern in "[ab/._*]{0,12}", path in "[ab/._]{0,12}") {
            let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
            let reference = regex::Regex::new(&format!("^{}$", parts.join(".*"))).unwrap();
            prop_assert_eq!(PathPattern::new(&pattern).matches(&path), reference.is_match(&path));
        }

        #[test]
        fn never_panics(pattern: String, path: String) {
            let _ = PathPattern::new(&pattern).matches(&path);
        }
    }
}
