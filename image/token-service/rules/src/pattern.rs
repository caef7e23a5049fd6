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
    /// Greedy with one point to return to, so that the time is at most the product of both lengths.
    pub fn matches(&self, path: &str) -> bool {
        let (pattern, path) = (self.folded.as_bytes(), path.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < path.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p + 1, n));
                p += 1;
            } else if pattern.get(p) == path.get(n) {
                p += 1;
                n += 1;
            } else if let Some((after, taken)) = star {
                star = Some((after, taken + 1));
                p = after;
                n = taken + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
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
