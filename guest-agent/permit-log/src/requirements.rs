//! What a verifier requires of a log, and its judgement.
//!
//! ```toml
//! whole = true                                  # no entry may have been folded
//! policy = "9f86…"                              # SHA-256 of the policy in force
//! layers = ["1c2d…", "77aa…"]                   # exactly these root hashes were mounted, ever
//! fragments = ["08b1…"]                         # no others were loaded, by SHA-256 of their Rego text
//! only_named = true                             # every container is one of those below
//! started_before = [["proxy", "app"]]           # a proxy was running whenever an app was started
//! no_exec_since = ["app"]                       # no exec in any container nor in the guest since the first app was started
//! never = ["external", "dump_stacks"]           # acts that were never permitted
//!
//! [containers.proxy]
//! layers = ["1c2d…"]                            # of its root file system, top layer first
//! command = ["/bin/proxy", "--strict"]          # optional
//! [containers.app]
//! layers = ["77aa…"]
//! ```
//! Of a log that was folded, `started_before` judges the containers that exist and may miss those that were removed; `whole` refuses it.
//! What must have happened counts only if it succeeded; what must not have happened counts as soon as it was permitted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    entry::{Digest, Entry, command_digest},
    history::{Container, History},
    log::Log,
};

/// Why a requirements file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementsError {
    /// Not a SHA-256 in hexadecimal.
    #[error("{0:?} is no SHA-256 in hexadecimal")]
    Digest(String),
    /// No container of this name is described.
    #[error("there is no [containers.{0}] that says which containers are meant")]
    Name(String),
    /// No entry has this kind.
    #[error("no act is called {0:?} in a log")]
    Kind(String),
}

/// Containers, by what they run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    layers: Vec<Hex>,
    command: Option<Vec<String>>,
}

/// A SHA-256 that is written in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Digest);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct File {
    whole: bool,
    policy: Option<Hex>,
    layers: Option<BTreeSet<Hex>>,
    fragments: Option<BTreeSet<Hex>>,
    containers: BTreeMap<String, Image>,
    only_named: bool,
    started_before: Vec<(String, String)>,
    no_exec_since: Vec<String>,
    never: Vec<String>,
}

/// What is required of a log; without any requirement each log passes. Every name and kind in it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "File")]
pub struct Requirements(File);

/// One requirement, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is required.
    pub required: String,
    /// `Ok`, or what the log says instead.
    pub judged: Result<(), String>,
}

impl TryFrom<String> for Hex {
    type Error = RequirementsError;

    fn try_from(text: String) -> Result<Self, RequirementsError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest).map_err(|_| RequirementsError::Digest(text))?;
        Ok(Self(digest))
    }
}

impl TryFrom<File> for Requirements {
    type Error = RequirementsError;

    fn try_from(file: File) -> Result<Self, RequirementsError> {
        let ordered = file.started_before.iter().flat_map(|(first, then)| [first, then]);
        for name in ordered.chain(&file.no_exec_since) {
            if !file.containers.contains_key(name) {
                return Err(RequirementsError::Name(name.clone()));
            }
        }
        if let Some(word) = file.never.iter().find(|word| !Entry::is_kind(word)) {
            return Err(RequirementsError::Kind(word.clone()));
        }
        Ok(Self(file))
    }
}

impl Image {
    fn is_of(&self, container: &Container) -> bool {
        let layers = self.layers.iter().map(|layer| &layer.0);
        let command = self.command.as_ref().map(|command| command_digest(command));
        layers.eq(&container.layers) && command.is_none_or(|command| command == container.command)
    }
}

impl Requirements {
    /// Judges a log, whose binding to a report the caller has verified: one finding for each requirement.
    pub fn judge(&self, log: &Log) -> Vec<Finding> {
        let history = History::of(log);
        let mut findings = Vec::new();
        let mut find = |required: String, judged: Result<(), String>| findings.push(Finding { required, judged });
        if self.0.whole {
            let folded = log.folded();
            find(
                "the whole log".to_owned(),
                must(folded == 0, || format!("{folded} entries are folded")),
            );
        }
        if let Some(policy) = &self.0.policy {
            find(format!("policy {}", hex::encode(policy.0)), self.is_policy(policy, log));
        }
        if let Some(layers) = &self.0.layers {
            find(format!("{} layers and no others", layers.len()), exactly(layers, log));
        }
        if let Some(fragments) = &self.0.fragments {
            find("no other fragments".to_owned(), no_others(fragments, log));
        }
        if self.0.only_named {
            find("no other containers".to_owned(), self.are_named(&history));
        }
        for (first, then) in &self.0.started_before {
            find(format!("{first} started before {then}"), self.in_order(first, then, &history));
        }
        for name in &self.0.no_exec_since {
            find(format!("no exec since {name} started"), self.quiet_since(name, log, &history));
        }
        for kind in &self.0.never {
            let found = log.entries().find(|(_, entry)| entry.kind() == kind);
            let judged = found.map_or(Ok(()), |(position, _)| Err(format!("permitted at {position}")));
            find(format!("never {kind}"), judged);
        }
        findings
    }

    fn is_policy(&self, policy: &Hex, log: &Log) -> Result<(), String> {
        match log.entries().next() {
            Some((0, Entry::Policy { digest })) if *digest == policy.0 => Ok(()),
            Some((0, Entry::Policy { digest })) => Err(hex::encode(digest)),
            _ => Err("the log does not begin with a policy".to_owned()),
        }
    }

    fn named<'h>(&self, name: &str, history: &'h History) -> Vec<&'h Container> {
        let image = self.0.containers.get(name);
        let is_meant = |container: &&Container| image.is_some_and(|image| image.is_of(container));
        history.containers.iter().filter(is_meant).collect()
    }

    fn are_named(&self, history: &History) -> Result<(), String> {
        let is_other = |container: &&Container| !self.0.containers.values().any(|image| image.is_of(container));
        match history.containers.iter().find(is_other) {
            None => Ok(()),
            Some(other) => Err(format!("container {} was created at {}", hex::encode(other.id), other.created)),
        }
    }

    fn in_order(&self, first: &str, then: &str, history: &History) -> Result<(), String> {
        let (firsts, thens) = (self.named(first, history), self.named(then, history));
        let mut releases = thens.iter().filter_map(|container| container.released).peekable();
        if releases.peek().is_none() {
            return Err(format!("no {then} was started"));
        }
        match releases.find(|release| !firsts.iter().any(|container| container.ran_at(*release))) {
            None => Ok(()),
            Some(release) => Err(format!("no {first} was running when {then} was started at {release}")),
        }
    }

    fn quiet_since(&self, name: &str, log: &Log, history: &History) -> Result<(), String> {
        let releases = self.named(name, history);
        let Some(since) = releases.iter().filter_map(|container| container.released).min() else {
            return Err(format!("no {name} was started"));
        };
        let is_exec = |entry: &Entry| matches!(entry, Entry::Exec { .. } | Entry::External { .. });
        match log.entries().find(|(position, entry)| *position > since && is_exec(entry)) {
            None => Ok(()),
            Some((position, _)) => Err(format!("an exec was permitted at {position}, and {name} was started at {since}")),
        }
    }
}

fn must(passed: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if passed { Ok(()) } else { Err(otherwise()) }
}

fn exactly(wanted: &BTreeSet<Hex>, log: &Log) -> Result<(), String> {
    let failed: BTreeSet<u64> = log.entries().filter_map(|(_, entry)| entry.failed()).collect();
    let mut missing: BTreeSet<Digest> = wanted.iter().map(|layer| layer.0).collect();
    for (position, entry) in log.entries() {
        if let Entry::Layer { root } = entry {
            if !wanted.contains(&Hex(*root)) {
                return Err(format!("layer {} was permitted at {position}", hex::encode(root)));
            }
            if !failed.contains(&position) {
                missing.remove(root);
            }
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(layer) => Err(format!("layer {} was not mounted", hex::encode(layer))),
    }
}

fn no_others(wanted: &BTreeSet<Hex>, log: &Log) -> Result<(), String> {
    let other = log.entries().find_map(|(position, entry)| match entry {
        Entry::Fragment { text, .. } if !wanted.contains(&Hex(*text)) => Some((position, text)),
        _ => None,
    });
    match other {
        None => Ok(()),
        Some((position, text)) => Err(format!("fragment {} was permitted at {position}", hex::encode(text))),
    }
}
