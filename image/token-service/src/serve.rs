//! The service's life: everything is read and checked, then it listens, until it is told to stop.

use crate::clock::Now;
use crate::config::Config;
use crate::keys::{KeyError, Keyring};
use crate::listener::{self, TlsError, TlsIdentity};
use crate::reload;
use crate::routes;
use crate::service::{Service, Shared};
use crate::{answer, journal};
use registry_store::{Store, StoreError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// How often old entries of the audit trail are removed.
const PRUNING: Duration = Duration::from_secs(60);
/// How far the wall clock may get ahead of the time that passed since the start: a step of it does not make the trail old.
const CLOCK_STEP: Duration = Duration::from_secs(600);
const DAY_MILLISECONDS: i64 = 86_400_000;

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A key that signs tokens.
    #[error("cannot use a key")]
    Key(#[from] KeyError),
    /// The certificate of the listener.
    #[error("cannot use the TLS certificate")]
    Tls(#[from] TlsError),
    /// The database.
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    /// The database was not opened to the end.
    #[error("the database's opening was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The signal that asks for new keys.
    #[error("cannot receive signals")]
    Signal {
        /// What the system said.
        source: std::io::Error,
    },
}

/// Serves until `stop` is ready, and then finishes what is under way, for half a minute at most. `ready` is called once, when
/// connections are accepted.
///
/// # Errors
/// [`ServeError`], before it listens; afterwards faults are answers, and lines on standard error.
pub async fn serve(config: Config, ready: impl FnOnce(SocketAddr) + Send, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    let keys = Keyring::read(config.keys)?;
    let identity = config.tls.map(TlsIdentity::read).transpose()?.map(Arc::new);
    let store = open(config.database).await?;
    let service = Service::new(store, keys, config.settings);
    let failed = |source| ServeError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // Dropped with this function, and all of them with it.
    let mut background = JoinSet::new();
    let signal = reload::signal().map_err(|source| ServeError::Signal { source })?;
    background.spawn(reload::watch(service.clone(), identity.clone(), signal));
    background.spawn(prune(service.clone()));
    ready(address);
    let running = listener::run(listener, identity, routes::router(service.clone()), service.clone(), stop);
    running.await;
    background.shutdown().await;
    service.store.close().await;
    Ok(())
}

/// Opens the database on a thread of its own: the driver's migration makes a future that cannot be proven to move between
/// threads, and a caller shall be free to spawn the service.
async fn open(database: String) -> Result<Store, ServeError> {
    let runtime = Handle::current();
    let opened = tokio::task::spawn_blocking(move || runtime.block_on(Store::open(&database)));
    Ok(opened.await??)
}

async fn prune(service: Shared) {
    let mut rounds = tokio::time::interval(PRUNING);
    let (began, began_at) = (Instant::now(), Now::read().milliseconds());
    loop {
        rounds.tick().await;
        let passed = i64::try_from((began.elapsed() + CLOCK_STEP).as_millis()).unwrap_or(i64::MAX);
        let now = Now::read().milliseconds().min(began_at.saturating_add(passed));
        let kept = i64::from(service.settings.audit_days) * DAY_MILLISECONDS;
        if let Err(failure) = service.store.prune_audit(now - kept, service.settings.audit_entries).await {
            journal::warn(&format!("old entries of the audit trail stay: {}", answer::reason(&failure)));
        }
    }
}
