//! What a log says of the guest's containers, put together from its entries.

use std::collections::{HashMap, HashSet};

use crate::{
    entry::{Digest, Entry},
    log::Log,
};

/// A container that was permitted. Numbers are positions in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id in the guest.
    pub id: Digest,
    /// Root hashes of its layers, top layer first.
    pub layers: Vec<Digest>,
    /// [`crate::command_digest`] of its init.
    pub command: Digest,
    /// Its creation was permitted.
    pub created: u64,
    /// Its start was first permitted.
    pub released: Option<u64>,
    /// A start had succeeded.
    pub started: Option<u64>,
    /// Its init had exited, or its end was permitted.
    pub over: Option<u64>,
}

impl Container {
    /// Whether it was certainly running when the entry at `position` was written.
    pub fn ran_at(&self, position: u64) -> bool {
        self.started.is_some_and(|started| started < position) && self.over.is_none_or(|over| over > position)
    }
}

/// The containers of a log, in the order of their creation. Of a log that was folded, the last of each kind that was removed is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Every container that was permitted, whether its creation succeeded or not.
    pub containers: Vec<Container>,
}

impl History {
    /// Reads a log.
    pub fn of(log: &Log) -> Self {
        let acts: HashMap<u64, &Entry> = log.entries().collect();
        let failed: HashSet<u64> = log.entries().filter_map(|(_, entry)| entry.failed()).collect();
        let mut mounted: HashMap<&Digest, &Vec<Digest>> = HashMap::new();
        let mut history = Self::default();
        for (position, entry) in log.entries() {
            match entry {
                Entry::Rootfs { .. } if failed.contains(&position) => {}
                Entry::Rootfs { container, layers } => drop(mounted.insert(container, layers)),
                Entry::Create { container, command, .. } => history.containers.push(Container {
                    id: *container,
                    layers: mounted.get(container).copied().cloned().unwrap_or_default(),
                    command: *command,
                    created: position,
                    released: None,
                    started: None,
                    over: None,
                }),
                Entry::Start { container } => history.latest(container, |latest| {
                    latest.released.get_or_insert(position);
                }),
                Entry::End { container } | Entry::Remove { container } => history.latest(container, |latest| {
                    latest.over.get_or_insert(position);
                }),
                Entry::Outcome { of, done: true } => {
                    if let Some(Entry::Start { container }) = acts.get(of) {
                        history.latest(container, |latest| {
                            latest.started.get_or_insert(position);
                        });
                    }
                }
                Entry::Exit { of, .. } => {
                    let exited = history.containers.iter_mut().find(|container| container.created == *of);
                    if let Some(exited) = exited {
                        exited.over.get_or_insert(position);
                    }
                }
                _ => {}
            }
        }
        history
    }

    fn latest(&mut self, id: &Digest, change: impl FnOnce(&mut Container)) {
        if let Some(container) = self.containers.iter_mut().rev().find(|container| container.id == *id) {
            change(container);
        }
    }
}
