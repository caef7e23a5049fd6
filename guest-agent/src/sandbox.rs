//! The guest as a whole: gate, storage and containers, and how judged requests run on them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use policy::Enforcer;
use tokio::{
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
};

use crate::{
    container::Containers,
    error::RequestError,
    evidence::Evidence,
    gate::{Gate, GateError},
    reaper::Reaper,
    storage::Storage,
};

/// What mutating requests work on, one at a time.
struct Guarded<E> {
    gate: Gate<E>,
    storage: Storage,
}

/// The guest's state.
pub struct Sandbox<E> {
    guarded: Arc<Mutex<Guarded<E>>>,
    is_open: AtomicBool,
    /// Containers, which requests that no policy judges look up without waiting for others.
    pub containers: Arc<Containers>,
    /// Room for calls that wait for a process.
    pub waiters: Semaphore,
}

impl<E: Evidence + 'static> Sandbox<E> {
    /// A guest that serves nothing yet.
    pub fn new(evidence: E, reaper: Arc<Reaper>) -> Self {
        Self {
            guarded: Arc::new(Mutex::new(Guarded {
                gate: Gate::Closed(evidence),
                storage: Storage::default(),
            })),
            is_open: AtomicBool::new(false),
            containers: Arc::new(Containers::new(reaper)),
            waiters: Semaphore::new(agent_protocol::limits::WAITERS),
        }
    }

    /// Opens the gate if `text` is the measured policy.
    pub async fn set_policy(&self, text: Vec<u8>) -> Result<[u8; 32], RequestError> {
        let mut guarded = self.guarded.clone().lock_owned().await;
        let result = spawn_blocking(move || guarded.gate.set_policy(text))
            .await
            .map_err(|_| RequestError::Panicked)?;
        match &result {
            Ok(digest) => {
                self.is_open.store(true, Ordering::Release);
                eprintln!("agent: policy {} is in force", hex::encode(digest));
            }
            Err(error) => eprintln!("agent: {error}"),
        }
        Ok(result?)
    }

    /// Whether requests that no policy judges are served.
    pub fn check_open(&self) -> Result<(), GateError> {
        if self.is_open.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(GateError::Closed)
        }
    }

    /// Runs a judged request: alone, to its end even if the caller goes away, and on a thread that may block.
    pub async fn judged<T, F>(&self, request: F) -> Result<T, RequestError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Enforcer, &mut Storage, &Containers) -> Result<T, RequestError> + Send + 'static,
    {
        self.check_open()?;
        let mut guarded = self.guarded.clone().lock_owned().await;
        let containers = self.containers.clone();
        let task = spawn_blocking(move || {
            let Guarded { gate, storage } = &mut *guarded;
            request(gate.enforcer()?, storage, &containers)
        });
        let result = task.await.map_err(|_| RequestError::Panicked)?;
        if let Err(RequestError::Denied(denied)) = &result {
            eprintln!("agent: denied by {}", denied.point());
        }
        result
    }
}
