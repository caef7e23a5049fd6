//! The serving process: one Task service under both of its names, and the Sandbox service, on the listener that is standard input.

use super::{Args, BootstrapError, address::Name};
use crate::{
    bundle::Bundle,
    events::Publisher,
    logging,
    sandbox::Sandbox,
    sandbox_service::SandboxService,
    task::{Ending, TaskService},
};
use containerd_shim_protos::{sandbox_async::create_sandbox, shim_async::create_task};
use futures_util::stream::{self, Stream};
use std::{
    collections::HashMap,
    fs::File,
    future::Future,
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use ttrpc::r#async::{Server, Service, transport::Listener};

/// Name that containerd 2 uses for the Task service.
const TASK_V3: &str = "containerd.task.v3.Task";
/// Name that containerd 1.x uses; the messages are the same on the wire.
const TASK_V2: &str = "containerd.task.v2.Task";
/// Threads of a shim, which mostly waits.
const WORKERS: usize = 2;
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|e| BootstrapError::Io("start the runtime", e))?;
    let result = runtime.block_on(run(&args, listener));
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

/// Connections to the shim, forever: a process without a free descriptor accepts again when one may be free. ttrpc's own
/// loop would try again at once, and log each time.
fn connections<S, F: Future<Output = io::Result<S>>>(accept: impl Fn() -> F) -> impl Stream<Item = io::Result<S>> {
    stream::unfold(accept, |accept| async move {
        loop {
            match accept().await {
                Ok(connection) => return Some((Ok(connection), accept)),
                Err(error) => log::warn!("cannot accept a connection, trying again after {ACCEPT_PAUSE:?}: {error}"),
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    })
}

/// How the shim ends: its name goes first, before any answer, so that the next start of this sandbox does not find a shim that is
/// about to end.
struct Door {
    name: Arc<Option<Name>>,
    finished: Arc<Notify>,
}

impl Ending for Door {
    fn end(&self) {
        self.name.iter().for_each(Name::remove);
        self.finished.notify_one();
    }

    fn end_if(&self, close: &dyn Fn() -> bool) -> bool {
        let unwanted = match &*self.name {
            Some(name) => name.remove_if(close),
            None => close(),
        };
        if unwanted {
            self.finished.notify_one();
        }
        unwanted
    }

    fn joined(&self, id: &str) {
        self.name.iter().for_each(|name| name.joined(id));
    }
}

/// The shim's name; dropping this removes it, however serving ends.
struct Removed(Arc<Option<Name>>);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.iter().for_each(Name::remove);
    }
}

async fn run(args: &Args, listener: UnixListener) -> Result<(), BootstrapError> {
    let name = Removed(Arc::new(Name::of(&listener)));
    let bundle = args.bundle_dir()?;
    let group = Bundle::group_in(&bundle, &args.id)?;
    Args::check_group(&group.id)?;
    ignore_signals()?;
    let events = Publisher::start(args.namespace.clone(), std::env::var("TTRPC_ADDRESS").unwrap_or_default());
    let sandbox = Arc::new(Sandbox::new(args.namespace.clone(), group.id.clone()));
    let finished = Arc::new(Notify::new());
    let door = Door {
        name: name.0.clone(),
        finished: finished.clone(),
    };
    let service = Arc::new(TaskService::new(
        sandbox.clone(),
        args.address.clone(),
        events.clone(),
        bundle,
        door,
    ));

    let listener = tokio::net::UnixListener::from_std(listener).map_err(|e| BootstrapError::Io("watch the listener", e))?;
    let listener = Arc::new(listener);
    let accept = move || {
        let listener = listener.clone();
        async move { listener.accept().await.map(|(connection, _)| connection) }
    };
    let mut server = Server::new()
        .add_listener(Listener::new(connections(accept)))
        .register_service(both_names(&service))
        .register_service(create_sandbox(Arc::new(SandboxService::new(service.clone(), sandbox.clone()))));
    server.start().await.map_err(BootstrapError::Server)?;
    crate::timeline::reached("serving");
    log::info!("serving sandbox {} in namespace {}", group.id, args.namespace);

    tokio::select! {
        () = finished.notified() => {}
        () = service.watch_end() => log::info!("nobody wants sandbox {} any more: the shim ends", group.id),
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

#[cfg(test)]
mod tests {
    use super::{
        super::address::{Address, Bound},
        *,
    };
    use containerd_shim_protos::{api::ShutdownRequest, shim_async::Task};
    use futures_util::StreamExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_process_without_descriptors_accepts_again_when_it_has_some() {
        let tried = AtomicUsize::new(0);
        let accept = || async {
            match tried.fetch_add(1, Ordering::SeqCst) {
                0..3 => Err(io::Error::from_raw_os_error(nix::libc::EMFILE)),
                n => Ok(n),
            }
        };
        let mut accepted = Box::pin(connections(accept));
        let started = tokio::time::Instant::now();
        assert_eq!(accepted.next().await.unwrap().unwrap(), 3);
        assert!(started.elapsed() >= 3 * ACCEPT_PAUSE, "it tried without a pause");
        assert_eq!(accepted.next().await.unwrap().unwrap(), 4);
    }

    #[tokio::test]
    async fn the_name_is_free_when_shutdown_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "web");
        let bind = || match address.bind().unwrap() {
            Bound::New(listener) => listener,
            Bound::Served => panic!("the next start would be served by a shim that ends"),
        };
        let old = bind();
        let name = Removed(Arc::new(Name::of(&old)));
        let finished = Arc::<Notify>::default();
        let service = TaskService::new(
            Arc::new(Sandbox::new("n".into(), "web".into())),
            String::new(),
            Publisher::start("n".into(), String::new()),
            dir.path().into(),
            Door {
                name: name.0.clone(),
                finished: finished.clone(),
            },
        );
        let context = ttrpc::r#async::TtrpcContext {
            mh: Default::default(),
            metadata: Default::default(),
            timeout_nano: 0,
            connection_data: Default::default(),
        };
        service.shutdown(&context, ShutdownRequest::new()).await.unwrap();
        // The old shim listens on while it says its last words; at its end it leaves the new one's name.
        let _new = bind();
        drop((name, old));
        assert!(address.answers());
        finished.notified().await;
    }
}
