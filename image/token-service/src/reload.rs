//! Keys and certificates are read again when their files change, or on SIGHUP.

use crate::answer::reason;
use crate::journal;
use crate::listener::TlsIdentity;
use crate::service::Shared;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind};

/// How often the files are looked at.
const LOOKING: Duration = Duration::from_secs(1);

/// The signal. It is caught from now on.
pub(crate) fn signal() -> io::Result<Signal> {
    tokio::signal::unix::signal(SignalKind::hangup())
}

/// What tells that a file is another one: its number, its length, its times.
type Stamp = Option<(u64, u64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec()))
}

/// Reads again whatever changes, for ever. What is faulty stays as it was, and is tried again at the next change.
pub(crate) async fn watch(service: Shared, identity: Option<Arc<TlsIdentity>>, mut signal: Signal) {
    let keys = || service.keys.files().map(|path| stamp(path)).collect::<Vec<_>>();
    let certificates = || {
        let files = identity.iter().flat_map(|identity| identity.files());
        files.map(|path| stamp(path)).collect::<Vec<_>>()
    };
    // What was read before the first look may be older than it: both are read once more.
    let (mut known_keys, mut known_certificates) = (Vec::new(), Vec::new());
    let mut looks = tokio::time::interval(LOOKING);
    let mut first = true;
    loop {
        let asked = tokio::select! {
            _ = looks.tick() => false,
            asked = signal.recv() => asked.is_some(),
        };
        let (keys_now, certificates_now) = (keys(), certificates());
        if asked || keys_now != known_keys {
            let read = service.keys.reread();
            told(&service, "the keys", read.map_err(|error| reason(&error)), first);
            known_keys = keys_now;
        }
        if let Some(identity) = &identity
            && (asked || certificates_now != known_certificates)
        {
            let read = identity.reread();
            told(&service, "the TLS certificate", read.map_err(|error| reason(&error)), first);
            known_certificates = certificates_now;
        }
        first = false;
    }
}

fn told(service: &Shared, what: &str, result: Result<(), String>, quietly: bool) {
    match result {
        Ok(()) if quietly => {}
        Ok(()) => journal::note(&format!("read {what} again")),
        Err(reason) => {
            service.metrics.reload_failed();
            journal::warn(&format!("{what} stay as they were: {reason}"));
        }
    }
}
