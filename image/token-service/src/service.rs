//! What every request needs: the store, the keys, the limits and the counts.

use crate::config::Settings;
use crate::keys::Keyring;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::throttle::Throttle;
use registry_store::Store;
use std::sync::Arc;
use std::time::Instant;

/// The service as handlers share it.
pub(crate) type Shared = Arc<Service>;

/// A running service.
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) keys: Keyring,
    pub(crate) settings: Settings,
    pub(crate) throttle: Throttle,
    pub(crate) passwords: Passwords,
    pub(crate) metrics: Metrics,
}

impl Service {
    pub(crate) fn new(store: Store, keys: Keyring, settings: Settings) -> Shared {
        Arc::new(Self {
            throttle: Throttle::new(settings.failed_logins, settings.failure_window(), Instant::now()),
            passwords: Passwords::default(),
            metrics: Metrics::default(),
            store,
            keys,
            settings,
        })
    }
}
