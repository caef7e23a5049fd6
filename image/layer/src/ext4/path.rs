//! Entry paths, normalised relative to the layer's root before use.

use crate::error::EntryError;

/// Longest name in a directory.
const MAX_NAME_BYTES: usize = 255;

/// Components of a path from the layer's root: no `.`, no `..`, none empty, none too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CleanPath {
    joined: Vec<u8>,
}

impl CleanPath {
    /// A leading `/` is the layer's root, as in hcsshim. A path whose `..` leaves the layer is an error
    /// (hcsshim silently stops at the root).
    pub(crate) fn new(path: &[u8], max_bytes: usize) -> Result<Self, EntryError> {
        let mut joined: Vec<u8> = Vec::with_capacity(path.len().min(max_bytes + 1));
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if joined.is_empty() => return Err(EntryError::Escapes),
                b".." => joined.truncate(joined.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
                _ if component.len() > MAX_NAME_BYTES => return Err(EntryError::NameTooLong),
                _ => {
                    if !joined.is_empty() {
                        joined.push(b'/');
                    }
                    joined.extend_from_slice(component);
                    if joined.len() > max_bytes {
                        return Err(EntryError::PathTooLong { limit: max_bytes });
                    }
                }
            }
        }
        Ok(CleanPath { joined })
    }

    /// The parent directories and the last name; `None` for the root.
    pub(crate) fn split(&self) -> Option<(impl Iterator<Item = &[u8]>, &[u8])> {
        if self.joined.is_empty() {
            return None;
        }
        let cut = self.joined.iter().rposition(|byte| *byte == b'/');
        let (parents, name) = cut.map_or(([].as_slice(), self.joined.as_slice()), |cut| {
            (&self.joined[..cut], &self.joined[cut + 1..])
        });
        Some((parents.split(|byte| *byte == b'/').filter(|component| !component.is_empty()), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(path: &str) -> Result<String, EntryError> {
        CleanPath::new(path.as_bytes(), 4096).map(|path| String::from_utf8(path.joined).unwrap())
    }

    #[test]
    fn paths_start_at_the_layers_root() {
        for (path, cleaned) in [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b/.", "a/b"),
            ("a/../b", "b"),
            ("a/b/..", "a"),
            ("", ""),
            ("/", ""),
            ("a/..", ""),
        ] {
            assert_eq!(clean(path).as_deref(), Ok(cleaned), "{path}");
        }
    }

    #[test]
    fn paths_do_not_leave_the_layer() {
        for path in ["..", "/..", "../a", "a/../..", "a/../../b", "./../x"] {
            assert_eq!(clean(path), Err(EntryError::Escapes), "{path}");
        }
        assert_eq!(clean(&"x".repeat(256)), Err(EntryError::NameTooLong));
        assert_eq!(clean(&"x/".repeat(3000)), Err(EntryError::PathTooLong { limit: 4096 }));
    }

    proptest! {
        #[test]
        fn cleaning_is_idempotent_and_leaves_only_plain_names(path in "(\\.|\\.\\.|a|bc|/){0,20}") {
            if let Ok(cleaned) = clean(&path) {
                prop_assert!(cleaned.is_empty() || cleaned.split('/').all(|name| !matches!(name, "" | "." | "..")));
                prop_assert_eq!(clean(&cleaned), Ok(cleaned));
            }
        }

        #[test]
        fn splitting_loses_nothing(path in "[ab/]{0,12}") {
            let cleaned = CleanPath::new(path.as_bytes(), 4096).unwrap();
            let joined = cleaned.split().map(|(parents, name)| parents.chain([name]).collect::<Vec<_>>().join(b"/".as_slice()));
            prop_assert_eq!(joined.unwrap_or_default(), cleaned.joined);
        }
    }
}
