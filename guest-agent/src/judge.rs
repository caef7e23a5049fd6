//! The enforcer together with the log of what it permitted: it gives no permit that the log does not have.
//!
//! The enforcer is reachable only through this type, and nothing acts without a permit. So each act is in the log before it begins, and a
//! report that a container gets later covers it. The log's outcome follows when the request is over ([`Judge::conclude`]).

mod entries;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use permit_log::{Entry, Full, Log};
use policy::{
    Denied, Enforcer, Permit, PolicyError, ProvenReceipt,
    action::{Action, AttestationReport, GetProperties, Mount},
};

pub use self::entries::{Recorded, id, resumed};
use crate::reaper::{ExitWatch, ended};

/// Why there is no permit.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Denied(#[from] Denied),
    /// What cannot be logged is not permitted.
    #[error(transparent)]
    Full(#[from] Full),
}

/// The log, which the judge, exits and reports share.
#[derive(Clone, Default)]
pub struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    /// Adds an entry and returns its position.
    pub fn append(&self, entry: Entry) -> Result<u64, Full> {
        self.lock().append(entry)
    }

    /// The log, for as long as the guard is held.
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log as the judge writes it: with the acts of the request that runs.
struct Record {
    log: SharedLog,
    /// Acts without outcome.
    begun: Vec<u64>,
    /// Points whose permission is logged once.
    logged: BTreeSet<&'static str>,
}

impl Record {
    fn begin(&mut self, entry: Entry) -> Result<(), Full> {
        self.begun.push(self.log.append(entry)?);
        Ok(())
    }

    /// Statistics and reports are asked for all the time and change nothing in the guest: one entry says that it was permitted.
    fn begin_once<A: Action>(&mut self, entry: Entry) -> Result<(), Full> {
        let changes_nothing = [GetProperties::POINT, AttestationReport::POINT].contains(&A::POINT);
        if changes_nothing && !self.logged.insert(A::POINT) {
            return Ok(());
        }
        self.begin(entry)
    }
}

/// Judges each act, and has it in the log before there is a permit.
pub struct Judge {
    enforcer: Enforcer,
    policy: [u8; 32],
    record: Record,
    /// Mounts that every container may have beyond the policy's.
    default_mounts: Vec<Mount>,
}

impl Judge {
    /// For the policy with this digest, which is the log's first entry.
    pub fn new(enforcer: Enforcer, digest: [u8; 32], log: SharedLog) -> Result<Self, Full> {
        log.append(Entry::Policy { digest })?;
        let record = Record {
            log,
            begun: Vec::new(),
            logged: BTreeSet::new(),
        };
        Ok(Self {
            enforcer,
            policy: digest,
            record,
            default_mounts: Vec::new(),
        })
    }

    /// Asks the policy. A permit that is dropped afterwards stays in the log: it was given.
    pub fn enforce<A: Recorded>(&mut self, action: A) -> Result<Permit<'_, A>, Refusal> {
        let entry = action.entry();
        self.enforce_as(action, entry)
    }

    /// As [`Self::enforce`], for an act that its action alone does not describe.
    pub fn enforce_as<A: Action>(&mut self, action: A, entry: Entry) -> Result<Permit<'_, A>, Refusal> {
        let permit = self.enforcer.enforce(action)?;
        self.record.begin_once::<A>(entry)?;
        Ok(permit)
    }

    /// Decisions that are kept or rolled back together.
    pub fn transaction(&mut self) -> Whole<'_> {
        Whole {
            transaction: self.enforcer.transaction(),
            record: &mut self.record,
        }
    }

    /// Logs an act that no policy judges, before it begins.
    pub fn note(&mut self, entry: Entry) -> Result<(), Full> {
        self.record.begin(entry)
    }

    /// Logs the exit of the process that the last act has started, when it comes.
    pub fn follow(&self, exit: ExitWatch) {
        if let Some(of) = self.record.begun.last().copied() {
            let log = self.record.log.clone();
            tokio::spawn(async move {
                let status = ended(exit).await.status;
                // A full log permits nothing more, so nobody can be misled about what ran then.
                let _ = log.append(Entry::Exit { of, status });
            });
        }
    }

    /// Logs the outcome of the acts that were begun: the request that they belong to is over.
    pub fn conclude(&mut self, done: bool) {
        for of in self.record.begun.drain(..) {
            // Without an outcome the act does not count as done; see above.
            let _ = self.record.log.append(Entry::Outcome { of, done });
        }
    }

    /// As [`Enforcer::extend_default_mounts`], each of them once. They are the agent's own, so the log needs no entry of them.
    ///
    /// # Errors
    /// Everything is denied from now on.
    pub fn extend_default_mounts(&mut self, mounts: Vec<Mount>) -> Result<(), PolicyError> {
        let new = mounts
            .into_iter()
            .filter(|mount| !self.default_mounts.contains(mount))
            .collect::<Vec<_>>();
        if !new.is_empty() {
            self.enforcer.extend_default_mounts(&new)?;
            self.default_mounts.extend(new);
        }
        Ok(())
    }

    /// SHA-256 of the policy in force.
    pub fn policy(&self) -> [u8; 32] {
        self.policy
    }

    /// As [`Enforcer::judges_confinement`].
    pub fn judges_confinement(&self) -> bool {
        self.enforcer.judges_confinement()
    }

    /// As [`Enforcer::is_poisoned`].
    pub fn is_poisoned(&self) -> bool {
        self.enforcer.is_poisoned()
    }

    /// As [`Enforcer::proven_receipts`].
    pub fn proven_receipts<R>(
        &self,
        claims: impl IntoIterator<Item = (String, R)>,
        confirms: impl FnMut(&R, &str, &[u8]) -> bool,
    ) -> Vec<ProvenReceipt> {
        self.enforcer.proven_receipts(claims, confirms)
    }
}

/// As [`policy::Transaction`], with the log.
pub struct Whole<'j> {
    transaction: policy::Transaction<'j>,
    record: &'j mut Record,
}

impl Whole<'_> {
    /// As [`Judge::enforce`].
    pub fn enforce<A: Recorded>(&mut self, action: A) -> Result<Permit<'_, A>, Refusal> {
        let entry = action.entry();
        self.enforce_as(action, entry)
    }

    /// As [`Judge::enforce_as`].
    pub fn enforce_as<A: Action>(&mut self, action: A, entry: Entry) -> Result<Permit<'_, A>, Refusal> {
        let permit = self.transaction.enforce(action)?;
        self.record.begin_once::<A>(entry)?;
        Ok(permit)
    }

    /// As [`policy::Transaction::commit`].
    pub fn commit(self) {
        self.transaction.commit();
    }
}

#[cfg(test)]
mod tests;
