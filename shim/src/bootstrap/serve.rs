//! The serving process: one Task service under both of its names, on the listener that is standard input.

use super::{Args, BootstrapError, address::Address};
use crate::{bundle::Bundle, events::Publisher, logging, sandbox::Sandbox, task::TaskService};
use containerd_shim_protos::shim_async::create_task;
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use ttrpc::r#async::{Server, Service};

/// Name that containerd 2 uses for the Task service.
const TASK_V3: &str = "containerd.task.v3.Task";
/// Name that containerd 1.x uses; the messages are the same on the wire.
const TASK_V2: &str = "containerd.task.v2.Task";
/// Threads of a shim, which mostly waits.
const WORKERS: usize = 2;
/// The answer to `Shutdown` is sent within this time; then connections are closed.
const LAST_ANSWER: Duration = Duration::from_millis(50);
/// Connections must have closed within this time.
const DISCONNECT: Duration = Duration::from_secs(1);
/// Events that are still queued at shutdown are sent within this time.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// Serves until `Shutdown`, or until containerd has given up.
///
/// # Errors
/// See [`BootstrapError`]; later failures are answers to containerd.
pub fn serve(args: Args) -> Result<(), BootstrapError> {
    let bundle = args.bundle_dir()?;
    logging::init(&bundle, args.debug);
    let listener = take_listener()?;
    let name = Name::of(&listener);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|e| BootstrapError::Io("start the runtime", e))?;
    let result = runtime.block_on(run(&args, listener, name));
    // A reader of a log that hangs must not keep the shim alive after its shutdown.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Takes the listener from standard input, where `start` put it: the only descriptor that a child gets without unsafe code.
fn take_listener() -> Result<UnixListener, BootstrapError> {
    let failed = |e: io::Error| BootstrapError::Io("take the listener from standard input", e);
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    listener.local_addr().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(null).map_err(|e| failed(e.into()))?;
    Ok(listener)
}

/// The socket's path; dropping this removes the socket, in whichever way serving ends.
struct Name(Option<Address>);

impl Name {
    /// By the socket itself: containerd removes the bundle, and the address file in it, before the shim ends.
    fn of(listener: &UnixListener) -> Self {
        Self(Address::of(listener))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(address) = &self.0 {
            address.unlink();
        }
    }
}

async fn run(args: &Args, listener: UnixListener, name: Name) -> Result<(), BootstrapError> {
    let bundle = args.bundle_dir()?;
    let group = Bundle::read(&bundle)?.group(&args.id);
    Args::check_group(&group.id)?;
    ignore_signals()?;
    let events = Publisher::start(args.namespace.clone(), std::env::var("TTRPC_ADDRESS").unwrap_or_default());
    let sandbox = Arc::new(Sandbox::new(args.namespace.clone(), group.id.clone()));
    let finished = Arc::new(Notify::new());
    let service = Arc::new(TaskService::new(
        sandbox.clone(),
        args.address.clone(),
        events.clone(),
        finished.clone(),
    ));

    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| BootstrapError::Io("watch the listener", e))?;
    let mut server = Server::new().add_listener(listener.into()).register_service(both_names(&service));
    server.start().await.map_err(BootstrapError::Server)?;
    crate::timeline::reached("serving");
    log::info!("serving sandbox {} in namespace {}", group.id, args.namespace);

    tokio::select! {
        () = finished.notified() => {}
        () = service.abandoned(&bundle) => {
            log::warn!("containerd has removed {} and wants no container: the shim ends", bundle.display());
            // At once: the next start of this sandbox must not find a shim that is about to end.
            drop(name);
        }
    }
    // At the same time: containerd waits for the exit of this process before it answers its client.
    let answered = tokio::time::sleep(LAST_ANSWER);
    let ended = async {
        sandbox.stop().await;
        events.flush(LAST_EVENTS).await;
    };
    tokio::join!(answered, ended);
    let _ = tokio::time::timeout(DISCONNECT, server.shutdown()).await;
    log::info!("sandbox {} has ended", group.id);
    Ok(())
}

/// One implementation, called `v2` by containerd 1.x and `v3` by containerd 2.
fn both_names(service: &Arc<TaskService>) -> HashMap<String, Service> {
    let mut services = create_task(service.clone());
    for (_, task) in create_task(service.clone()) {
        services.insert(TASK_V2.to_owned(), task);
    }
    debug_assert!(services.contains_key(TASK_V3));
    services
}

/// A shim ends by `Shutdown`. Pods must survive the signals that a service manager sends.
fn ignore_signals() -> Result<(), BootstrapError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|e| BootstrapError::Io("watch for signals", e))?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                log::warn!("signal {} ignored: a shim ends by Shutdown", kind.as_raw_value());
            }
        });
    }
    Ok(())
}
