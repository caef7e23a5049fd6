//! What is kept of entries that are folded.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::entry::{Digest, Entry};

/// Newer entries make an older one with the same key superfluous.
#[derive(PartialEq, Eq, Hash)]
enum Key<'e> {
    Layer(Digest),
    /// Layers and command of a container.
    Image(&'e [Digest], Digest),
    Container(&'static str, Digest),
    Kind(&'static str),
}

/// What ends with a removal, and what with an unmount.
const CREATE: &str = "create";
const ROOTFS: &str = "rootfs";

/// For each creation, the mount of its root file system and that one's layers.
type Roots<'e> = HashMap<u64, (u64, &'e [Digest])>;

fn roots<'e>(entries: impl Iterator<Item = (u64, &'e Entry)> + Clone) -> Roots<'e> {
    let failed: HashSet<u64> = entries.clone().filter_map(|(_, entry)| entry.failed()).collect();
    let mut mounted: HashMap<&Digest, (u64, &[Digest])> = HashMap::new();
    let mut roots = HashMap::new();
    for (position, entry) in entries {
        match entry {
            Entry::Rootfs { container, layers } if !failed.contains(&position) => {
                mounted.insert(container, (position, layers.as_slice()));
            }
            Entry::Create { container, .. } => {
                if let Some(root) = mounted.get(container) {
                    roots.insert(position, *root);
                }
            }
            _ => {}
        }
    }
    roots
}

/// Of the entries below `folded`, those that must be kept, given all entries in their order.
///
/// An entry makes older ones superfluous only if it ended like them: a start that failed does not replace one that succeeded.
pub fn kept<'e>(entries: impl DoubleEndedIterator<Item = (u64, &'e Entry)> + Clone, folded: u64) -> Vec<(u64, Entry)> {
    let roots = roots(entries.clone());
    // Root file systems of creations that are kept.
    let mut needed = HashSet::new();
    let mut seen = HashSet::new();
    // What completes an entry comes after it, so it is met before it here.
    let mut completions: HashMap<u64, Vec<(u64, &Entry)>> = HashMap::new();
    let (mut removed, mut unmounted) = (HashSet::new(), HashSet::new());
    // Ends of containers and of root file systems: kept with what they end, or that would count as existing from the next time on.
    let mut ends: HashMap<(&str, &Digest), Vec<(u64, &Entry)>> = HashMap::new();
    let mut kept = BTreeMap::new();
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
        let ended = match entry {
            Entry::Create { container, .. } if done != Some(false) => ends.remove(&(CREATE, container)),
            Entry::Rootfs { container, .. } if done != Some(false) => ends.remove(&(ROOTFS, container)),
            Entry::Remove { container } if done == Some(true) => {
                removed.insert(*container);
                ends.insert((CREATE, container), [&[(position, entry)], &completed[..]].concat());
                None
            }
            Entry::RootfsRemoved { container } if done == Some(true) => {
                unmounted.insert(*container);
                ends.insert((ROOTFS, container), [&[(position, entry)], &completed[..]].concat());
                None
            }
            _ => None,
        };
        let mut is_first = |key| seen.insert((key, done));
        let keep = match entry {
            Entry::Policy { .. } | Entry::Fragment { .. } | Entry::TrustList { .. } => true,
            Entry::Layer { root } => is_first(Key::Layer(*root)),
            Entry::Rootfs { .. } if needed.contains(&position) => true,
            other => {
                let gone = match other {
                    Entry::Rootfs { .. } | Entry::RootfsRemoved { .. } => &unmounted,
                    _ => &removed,
                };
                let of_container = other.container().filter(|container| !gone.contains(*container));
                let last_of_kind = is_first(Key::Kind(other.kind()));
                let of_image = match (other, roots.get(&position)) {
                    (Entry::Create { command, .. }, Some((_, layers))) => is_first(Key::Image(layers, *command)),
                    _ => false,
                };
                of_container.is_some_and(|container| is_first(Key::Container(other.kind(), *container))) || last_of_kind || of_image
            }
        };
        if keep {
            needed.extend(roots.get(&position).map(|(mount, _)| *mount));
            kept.insert(position, entry);
            kept.extend(completed);
            kept.extend(ended.unwrap_or_default());
        }
    }
    let kept = kept.range(..folded);
    kept.map(|(position, entry)| (*position, (*entry).clone())).collect()
}
