//! What is kept of entries that are folded.

use std::collections::{HashMap, HashSet};

use crate::entry::{Digest, Entry};

/// Newer entries make an older one with the same key superfluous.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Layer(Digest),
    Container(&'static str, Digest),
    Kind(&'static str),
}

/// Of the entries below `folded`, those that must be kept, given all entries in their order.
///
/// An entry makes older ones superfluous only if it ended like them: a start that failed does not replace one that succeeded.
pub fn kept<'e>(entries: impl DoubleEndedIterator<Item = (u64, &'e Entry)>, folded: u64) -> Vec<(u64, Entry)> {
    let mut seen = HashSet::new();
    // What completes an entry comes after it, so it is met before it here.
    let mut completions: HashMap<u64, Vec<(u64, &Entry)>> = HashMap::new();
    let (mut removed, mut unmounted) = (HashSet::new(), HashSet::new());
    let mut kept = Vec::new();
    for (position, entry) in entries.rev() {
        if let Some(of) = entry.completes() {
            completions.entry(of).or_default().push((position, entry));
            continue;
        }
        let completed = completions.remove(&position).unwrap_or_default();
        let done = completed.iter().find_map(|(_, entry)| match entry {
            Entry::Outcome { done, .. } => Some(*done),
            _ => None,
        });
        match entry {
            Entry::Remove { container } if done == Some(true) => drop(removed.insert(*container)),
            Entry::RootfsRemoved { container } if done == Some(true) => drop(unmounted.insert(*container)),
            _ => {}
        }
        let mut is_first = |key| seen.insert((key, done));
        let keep = match entry {
            Entry::Policy { .. } | Entry::Fragment { .. } | Entry::TrustList { .. } => true,
            Entry::Layer { root } => is_first(Key::Layer(*root)),
            other => {
                let gone = match other {
                    Entry::Rootfs { .. } | Entry::RootfsRemoved { .. } => &unmounted,
                    _ => &removed,
                };
                let of_container = other.container().filter(|container| !gone.contains(*container));
                let last_of_kind = is_first(Key::Kind(other.kind()));
                of_container.is_some_and(|container| is_first(Key::Container(other.kind(), *container))) || last_of_kind
            }
        };
        if keep {
            kept.push((position, entry));
            kept.extend(completed);
        }
    }
    kept.retain(|(position, _)| *position < folded);
    kept.sort_by_key(|(position, _)| *position);
    kept.into_iter().map(|(position, entry)| (position, entry.clone())).collect()
}
