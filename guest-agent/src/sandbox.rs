//! The guest as a whole: gate, log, storage and containers, and how judged requests run on them.
//!
//! ```text
//!           set_policy                  an act that cannot be undone, does not end, or panics
//!   Closed ────────────► Open ──────────────────────────────────────────────────────────────────► Sealed
//! ```
//! A judged request runs alone, because its permit borrows the judge. So it must end, and it must happen completely or not
//! at all. If an act may have half happened, the policy's view of the guest may be wrong, and with it every later judgement: the
//! guest is sealed, and from then on answers every request with that error. Running containers keep running, and calls
//! that wait for their exit are answered.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use agent_protocol::limits::ACT_DEADLINE;
use permit_log::{Entry, Head, Nonce, report_data};
use policy::{
    ContainerId, Permit,
    action::{AttestationReport, RuntimeLogging},
};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    container::Containers,
    decode::PolicyOrder,
    error::RequestError,
    evidence::{self, Attested, Evidence},
    gate::{Gate, GateError},
    judge::{Judge, SharedLog},
    launcher::Program,
    log,
    reaper::Reaper,
    report_socket::Desk,
    security_context::SecurityContext,
    storage::Storage,
};

/// What mutating requests change, one request at a time.
struct Guarded<E> {
    gate: Gate<Arc<E>>,
    storage: Storage,
}

/// The requests that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing but SetPolicy.
    Closed,
    /// What the policy allows.
    Open,
    /// None, until the guest is powered off.
    Sealed,
}

/// The guest's phase; it never goes back.
#[derive(Clone)]
struct Stages(Arc<watch::Sender<Stage>>);

impl Stages {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Stage::Closed)))
    }

    fn open(&self) {
        self.0.send_if_modified(|stage| {
            let opens = *stage == Stage::Closed;
            if opens {
                *stage = Stage::Open;
            }
            opens
        });
    }

    fn seal(&self, why: &RequestError) {
        log::line(format_args!("sealed: {}", crate::error::wire_text(why)));
        self.0.send_replace(Stage::Sealed);
    }

    fn check_open(&self) -> Result<(), GateError> {
        match *self.0.borrow() {
            Stage::Closed => Err(GateError::Closed),
            Stage::Open => Ok(()),
            Stage::Sealed => Err(GateError::Sealed),
        }
    }

    /// Returns when the guest is sealed.
    async fn sealed(&self) {
        // The sender lives as long as `self`, so this cannot return in another way.
        let _ = self.0.subscribe().wait_for(|stage| *stage == Stage::Sealed).await;
    }
}

/// What a verifier needs to believe what this guest did.
pub struct Proof {
    /// A report whose REPORT_DATA binds nonce and head.
    pub report: Vec<u8>,
    /// As in [`Attested`].
    pub certificates: Vec<u8>,
    /// The encoding of the log.
    pub log: Vec<u8>,
    /// Its head.
    pub head: Head,
}

/// The guest's state.
pub struct Sandbox<E> {
    guarded: Arc<Mutex<Guarded<E>>>,
    stages: Stages,
    /// Containers. Requests that no policy judges look them up without waiting for other requests.
    pub containers: Arc<Containers>,
    /// What was permitted.
    log: SharedLog,
    evidence: Arc<E>,
    /// Capacity for calls that wait for a process.
    pub waiters: Semaphore,
}

impl<E: Evidence + 'static> Sandbox<E> {
    /// A guest that serves nothing yet. Its containers ask for reports at `desk`.
    pub fn new(evidence: E, program: Program, reaper: Arc<Reaper>, desk: Desk) -> Self {
        let evidence = Arc::new(evidence);
        Self {
            guarded: Arc::new(Mutex::new(Guarded {
                gate: Gate::Closed(evidence.clone()),
                storage: Storage::default(),
            })),
            stages: Stages::new(),
            containers: Arc::new(Containers::new(program, reaper, desk)),
            log: SharedLog::default(),
            evidence,
            waiters: Semaphore::new(agent_protocol::limits::WAITERS),
        }
    }

    /// Opens the gate if the text is the measured policy.
    pub async fn set_policy(&self, order: PolicyOrder) -> Result<[u8; 32], RequestError> {
        if let Err(sealed @ GateError::Sealed) = self.check_open() {
            return Err(sealed.into());
        }
        let mut guarded = self.guarded.clone().lock_owned().await;
        let containers = self.containers.clone();
        let stages = self.stages.clone();
        let log = self.log.clone();
        let set = move || {
            let digest = guarded.gate.set_policy(order.text.clone(), &log)?;
            // Before any request is served.
            *containers.context() = SecurityContext::of(order);
            let judge = guarded.gate.judge()?;
            log::decide(judge.enforce(RuntimeLogging {}).map(Permit::commit).is_ok());
            judge.conclude(true);
            // Here, and not in the caller, which may be gone by now.
            stages.open();
            Ok(digest)
        };
        let result: Result<_, GateError> = spawn_blocking(set).await.map_err(|_| RequestError::Panicked)?;
        match &result {
            Ok(digest) => log::line(format_args!("policy {} is in force", hex::encode(digest))),
            Err(error) => log::line(error),
        }
        Ok(result?)
    }

    /// A report for a container that binds its nonce and the log, if the policy allows the container to ask.
    pub async fn report(&self, container_id: ContainerId, nonce: Nonce) -> Result<Proof, RequestError> {
        let judged = self.exclusive(move |judge, _, containers| {
            containers.get(&container_id)?;
            judge.enforce(AttestationReport { container_id })?.commit();
            Ok(judge.policy())
        });
        let policy = judged.await?;
        let (log, evidence) = (self.log.clone(), self.evidence.clone());
        let prove = move || {
            let (head, log) = {
                let log = log.lock();
                (log.head(), log.encode())
            };
            let Attested { report, certificates } = evidence::proof(&evidence, &report_data(&nonce, &head), &policy)?;
            let report = report.as_bytes().to_vec();
            Ok(Proof {
                report,
                certificates,
                log,
                head,
            })
        };
        spawn_blocking(prove).await.map_err(|_| RequestError::Panicked)?
    }

    /// Logs that the guest powers off, which nobody judges.
    pub fn note_power_off(&self) {
        // A full log permits nothing more either.
        let _ = self.log.append(Entry::PowerOff);
    }

    /// Whether requests that no policy judges are served.
    pub fn check_open(&self) -> Result<(), GateError> {
        self.stages.check_open()
    }

    /// Runs a request that changes the guest: alone, to its end even if the caller disconnects, and on a thread that may block.
    pub async fn exclusive<T, F>(&self, request: F) -> Result<T, RequestError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Judge, &mut Storage, &Containers) -> Result<T, RequestError> + Send + 'static,
    {
        self.check_open()?;
        let mut guarded = tokio::select! {
            guarded = self.guarded.clone().lock_owned() => guarded,
            () = self.stages.sealed() => return Err(GateError::Sealed.into()),
        };
        // The previous request may have sealed the guest; it does so before it releases the lock.
        self.check_open()?;
        let containers = self.containers.clone();
        let stages = self.stages.clone();
        let act = spawn_blocking(move || {
            let Guarded { gate, storage } = &mut *guarded;
            let whole = catch_unwind(AssertUnwindSafe(|| request(gate.judge()?, storage, &containers)));
            let result = whole.unwrap_or(Err(RequestError::Panicked));
            if let Ok(judge) = gate.judge() {
                judge.conclude(result.is_ok());
            }
            match &result {
                Err(error) if error.is_uncertain() => stages.seal(error),
                _ if gate.judge().is_ok_and(|judge| judge.is_poisoned()) => stages.seal(&RequestError::Undone),
                _ => {}
            }
            result
        });
        let stages = self.stages.clone();
        // In a separate task, so that the deadline is enforced even if the caller disconnects.
        let watched = tokio::spawn(async move {
            match timeout(ACT_DEADLINE, act).await {
                Ok(ended) => ended.unwrap_or(Err(RequestError::Panicked)),
                Err(_) => {
                    stages.seal(&RequestError::Stuck);
                    Err(RequestError::Stuck)
                }
            }
        });
        let result = watched.await.unwrap_or(Err(RequestError::Panicked));
        if let Err(RequestError::Denied(denied)) = &result {
            log::line(format_args!("denied by {}", denied.point()));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evidence::EvidenceError, report_socket, storage::StorageError};
    use policy::action::UnmountDevice;
    use sha2::{Digest, Sha256};

    struct OpenDoor;

    impl Evidence for OpenDoor {
        fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
            Ok(Sha256::digest(agent_protocol::OPEN_DOOR).into())
        }

        /// A report that binds what it must, and that nobody signed.
        fn report(&self, report_data: &[u8; 64]) -> Result<Attested, EvidenceError> {
            let mut bytes = vec![0; attestation::REPORT_BYTES];
            bytes[0] = 3;
            bytes[0x50..0x90].copy_from_slice(report_data);
            bytes[0xc0..0xe0].copy_from_slice(&self.host_data()?);
            let report = attestation::Report::parse(&bytes)?;
            let certificates = b"table".to_vec();
            Ok(Attested { report, certificates })
        }
    }

    async fn open_sandbox() -> Sandbox<OpenDoor> {
        let sandbox = Sandbox::new(
            OpenDoor,
            Program::sealed("/bin/true".as_ref()).unwrap(),
            Arc::new(Reaper::default()),
            report_socket::desk().0,
        );
        sandbox.set_policy(agent_protocol::OPEN_DOOR.into()).await.unwrap();
        sandbox
    }

    fn unmount() -> UnmountDevice {
        UnmountDevice {
            unmount_target: "/run/mounts/scsi/m0".to_owned(),
        }
    }

    async fn is_sealed(sandbox: &Sandbox<OpenDoor>) -> bool {
        let judged = sandbox.exclusive(|_, _, _| Ok(())).await;
        let other = sandbox.check_open();
        let policy = sandbox.set_policy(agent_protocol::OPEN_DOOR.into()).await;
        match (judged, other, policy) {
            (Err(RequestError::Gate(GateError::Sealed)), Err(GateError::Sealed), Err(RequestError::Gate(GateError::Sealed))) => true,
            (Ok(()), Ok(()), Err(RequestError::Gate(GateError::AlreadyOpen))) => false,
            other => panic!("half sealed: {other:?}"),
        }
    }

    #[tokio::test]
    async fn what_fails_and_was_undone_seals_nothing() {
        let sandbox = open_sandbox().await;
        let failed = sandbox
            .exclusive(|judge, _, _| {
                drop(judge.enforce(unmount())?);
                Err::<(), _>(StorageError::NoScratch.into())
            })
            .await;
        assert!(matches!(failed, Err(RequestError::Storage(StorageError::NoScratch))));
        assert!(!is_sealed(&sandbox).await);
    }

    #[tokio::test]
    async fn a_roll_back_that_fails_seals_the_guest() {
        let sandbox = open_sandbox().await;
        let failed = sandbox
            .exclusive(|judge, _, _| {
                drop(judge.enforce(unmount())?);
                Err::<(), _>(StorageError::NotUndone.into())
            })
            .await;
        assert!(matches!(failed, Err(RequestError::Storage(StorageError::NotUndone))));
        assert!(is_sealed(&sandbox).await);
    }

    #[tokio::test]
    async fn a_report_covers_the_log_that_comes_with_it() {
        let sandbox = open_sandbox().await;
        let act = sandbox.exclusive(|judge, _, _| {
            judge.enforce(unmount())?.commit();
            Ok(())
        });
        act.await.unwrap();
        let nonce = Nonce::new(vec![3; 32]).unwrap();
        // The guest's own entry among the containers.
        let proof = sandbox.report(crate::paths::guest(), nonce.clone()).await.unwrap();
        let report = attestation::Report::parse(&proof.report).unwrap();
        let log = permit_log::Log::verify(&proof.log, &nonce, &report.report_data()).unwrap();
        assert_eq!(log.head(), proof.head);
        let kinds: Vec<&str> = log.entries().map(|(_, entry)| entry.kind()).collect();
        assert!(
            kinds.contains(&"unmount_device") && kinds.contains(&"attestation_report"),
            "{kinds:?}"
        );
        assert_eq!(proof.certificates, b"table");
        let unknown = sandbox.report(ContainerId::new("nobody"), nonce).await;
        assert!(matches!(unknown, Err(RequestError::Container(_))));
    }

    #[tokio::test]
    async fn the_log_says_what_came_of_each_act() {
        let sandbox = open_sandbox().await;
        let act = |fails: bool| {
            sandbox.exclusive(move |judge, _, _| {
                judge.enforce(unmount())?.commit();
                if fails { Err(StorageError::NoScratch.into()) } else { Ok(()) }
            })
        };
        act(false).await.unwrap();
        act(true).await.unwrap_err();
        let panics = sandbox.exclusive(|judge, _, _| -> Result<(), _> {
            judge.enforce(unmount())?.commit();
            panic!("on purpose")
        });
        panics.await.unwrap_err();
        let log = sandbox.log.lock();
        let mut outcomes = Vec::new();
        let kinds: Vec<&str> = log.entries().map(|(_, entry)| entry.kind()).collect();
        for (position, entry) in log.entries() {
            if let Entry::Outcome { of, done } = entry {
                assert_eq!(position, of + 1, "acts are serial");
                outcomes.push(*done);
            }
        }
        assert_eq!(outcomes, [true, true, false, false], "of runtime_logging and three unmounts");
        assert_eq!(kinds[..3], ["policy", "runtime_logging", "outcome"]);
    }

    #[tokio::test]
    async fn a_panic_in_an_act_seals_the_guest() {
        let sandbox = open_sandbox().await;
        let failed = sandbox.exclusive(|_, _, _| -> Result<(), _> { panic!("on purpose") }).await;
        assert!(matches!(failed, Err(RequestError::Panicked)));
        assert!(is_sealed(&sandbox).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_act_that_does_not_end_seals_the_guest_and_blocks_no_other_request() {
        let sandbox = Arc::new(open_sandbox().await);
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let stuck = tokio::spawn({
            let sandbox = sandbox.clone();
            async move { sandbox.exclusive(move |_, _, _| Ok(hold.recv().is_ok())).await }
        });
        // tokio does not advance a paused clock while a blocking task runs.
        tokio::task::yield_now().await;
        let waiting = tokio::spawn({
            let sandbox = sandbox.clone();
            async move { sandbox.exclusive(|_, _, _| Ok(())).await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(2 * ACT_DEADLINE).await;
        assert!(matches!(stuck.await.unwrap(), Err(RequestError::Stuck)));
        assert!(matches!(waiting.await.unwrap(), Err(RequestError::Gate(GateError::Sealed))));
        assert!(matches!(
            sandbox.exclusive(|_, _, _| Ok(())).await,
            Err(RequestError::Gate(GateError::Sealed))
        ));
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_policy_that_is_set_for_a_caller_who_has_gone_is_in_force() {
        let sandbox = Arc::new(Sandbox::new(
            OpenDoor,
            Program::sealed("/bin/true".as_ref()).unwrap(),
            Arc::new(Reaper::default()),
            report_socket::desk().0,
        ));
        let mut gone = Box::pin(sandbox.set_policy(agent_protocol::OPEN_DOOR.into()));
        let waker = futures_util::task::noop_waker();
        assert!(gone.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        drop(gone);
        // The act that was begun has the lock, so this one comes after it.
        drop(sandbox.guarded.lock().await);
        sandbox.check_open().unwrap();
    }

    #[tokio::test]
    async fn requests_wait_for_one_another_but_look_ups_do_not() {
        let sandbox = Arc::new(open_sandbox().await);
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let sandbox = sandbox.clone();
            async move { sandbox.exclusive(move |_, _, _| Ok(hold.recv().is_ok())).await }
        });
        tokio::task::yield_now().await;
        sandbox.check_open().unwrap();
        assert!(sandbox.containers.get(&ContainerId::new("nobody")).is_err());
        release.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
    }
}
