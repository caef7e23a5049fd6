//! What must be shown, and which stories and tests show it: the last table of `make test-all`.
//!
//! `items.txt` has a line for each item: kind, item, names. A name is a story's, `unit:` and the end of a test's path,
//! or `conformance:` and what is replayed. An item counts as covered when every name stands for something that ran.

use crate::runner::summary::Counts;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

const ITEMS: &str = include_str!("items.txt");
const KIND_WIDTH: usize = 13;
const ITEM_WIDTH: usize = 66;

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Item<'a> {
    kind: &'a str,
    what: &'a str,
    names: Vec<&'a str>,
}

/// What ran, by name; failed or not is told elsewhere.
#[derive(Debug, Default)]
pub struct Ran {
    /// Stories that were told to their end.
    pub stories: BTreeSet<String>,
    /// Paths of unit and property tests, as `cargo test` prints them.
    pub tests: BTreeSet<String>,
    /// Kinds of replayed vectors.
    pub conformance: BTreeSet<String>,
}

impl Ran {
    fn has(&self, name: &str) -> bool {
        if let Some(test) = name.strip_prefix("unit:") {
            let inner = format!("::{test}");
            return self.tests.iter().any(|path| path == test || path.ends_with(&inner));
        }
        match name.strip_prefix("conformance:") {
            Some(kind) => self.conformance.contains(kind),
            None => self.stories.contains(name),
        }
    }
}

/// The table of items and who shows them, and how many are covered and not.
pub fn table(ran: &Ran) -> Result<(String, Counts)> {
    let mut text = format!("\n{:KIND_WIDTH$} {:ITEM_WIDTH$} shown by\n", "kind", "item");
    let mut counts = Counts::default();
    for item in items(ITEMS)? {
        let missing: Vec<&str> = item.names.iter().copied().filter(|name| !ran.has(name)).collect();
        let by = match (&item.names[..], &missing[..]) {
            ([], _) => "NOTHING".to_owned(),
            (names, []) => names.join(" "),
            (names, missing) => format!("{} — DID NOT RUN: {}", names.join(" "), missing.join(" ")),
        };
        if item.names.is_empty() || !missing.is_empty() {
            counts.failed += 1;
        } else {
            counts.passed += 1;
        }
        text += &format!("{:KIND_WIDTH$} {:ITEM_WIDTH$} {by}\n", item.kind, item.what);
    }
    Ok((text, counts))
}

fn items(text: &str) -> Result<Vec<Item<'_>>> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.split('|').map(str::trim);
            let mut part = || {
                parts
                    .next()
                    .with_context(|| format!("items.txt: not `kind | item | names`: {line}"))
            };
            let item = Item {
                kind: part()?,
                what: part()?,
                names: part()?.split_ascii_whitespace().collect(),
            };
            ensure!(parts.next().is_none(), "items.txt: too many parts: {line}");
            Ok(item)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read_and_has_each_item_once() {
        let items = items(ITEMS).unwrap();
        let mut whats: Vec<_> = items.iter().map(|item| (item.kind, item.what)).collect();
        whats.sort_unstable();
        whats.dedup();
        assert_eq!(whats.len(), items.len());
        assert!(!items.is_empty());
    }

    #[test]
    fn what_did_not_run_covers_nothing() {
        let mut ran = Ran::default();
        ran.stories.insert("exec".into());
        ran.tests.insert("queue::tests::a_loop_ends".into());
        ran.conformance.insert("layers".into());
        for name in ["exec", "unit:a_loop_ends", "unit:tests::a_loop_ends", "conformance:layers"] {
            assert!(ran.has(name), "{name}");
        }
        for name in ["exe", "unit:loop_ends", "unit:exec", "conformance:policy", ""] {
            assert!(!ran.has(name), "{name:?}");
        }
    }

    #[test]
    fn a_line_needs_three_parts() {
        assert_eq!(
            items("# a remark\n\na | b | c d\n").unwrap(),
            [Item {
                kind: "a",
                what: "b",
                names: vec!["c", "d"]
            }]
        );
        assert!(items("a | b").is_err());
        assert!(items("a | b | c | d").is_err());
        assert_eq!(items("a | b |").unwrap()[0].names, Vec::<&str>::new());
    }
}
