//! The server of the control socket: one JSON request and one reply per packet, on the event loop.

mod volumes;
mod wire;

use crate::{
    descriptors,
    devices::virtio::block::{LayersHandle, VolumesHandle},
    event_loop::{EventLoop, EventSet, Token},
    exit_reason::{ExitEvent, ExitReason},
    threads::Threads,
};
use std::{
    cell::Cell,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};
use vm_spec::control::{EXTENTS_PER_MESSAGE, Extent, Reply, Request, RunState};
use wire::Received;

/// Most clients at a time: the shim, an operator's tools, and a margin.
const CLIENTS_MAX: usize = 16;

/// Why the control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A descriptor of another kind.
    #[error("`control` must be a listening unix socket of type SOCK_SEQPACKET")]
    NotAListener,
    /// epoll failed.
    #[error("cannot poll the control socket")]
    Watch(#[source] io::Error),
}

/// Executes requests.
pub struct Control {
    threads: Rc<Threads>,
    layers: Option<LayersHandle>,
    volumes: VolumesHandle,
    exit_event: Arc<ExitEvent>,
    state: Cell<RunState>,
}

/// Registers the listening socket with the loop.
pub fn serve(events: &mut EventLoop, listener: OwnedFd, control: Control) -> Result<(), ControlError> {
    if !wire::is_seqpacket_listener(&listener) {
        return Err(ControlError::NotAListener);
    }
    let (control, clients) = (Rc::new(control), Rc::new(Cell::new(0)));
    let fd = listener.as_raw_fd();
    let accept = move |events: &mut EventLoop, _: Token, _: EventSet| {
        // A client that cannot be accepted now is still readable, or has closed its end.
        let Ok(client) = descriptors::accept(&listener) else { return };
        if clients.get() < CLIENTS_MAX {
            // Fails if too many descriptors are polled; dropping the handler closes the connection.
            let _ = add_client(events, client, control.clone(), Connected::new(clients.clone()));
        }
    };
    events.add(fd, EventSet::IN, Box::new(accept)).map_err(ControlError::Watch)?;
    Ok(())
}

fn add_client(events: &mut EventLoop, client: OwnedFd, control: Rc<Control>, connected: Connected) -> io::Result<Token> {
    let fd = client.as_raw_fd();
    let serve = move |events: &mut EventLoop, own: Token, _: EventSet| {
        let _count = &connected;
        let stays_open = match wire::receive(&client) {
            Ok(Some(packet)) => control.reply(events, &client, packet),
            Ok(None) => false,
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        if !stays_open {
            events.remove(own);
        }
    };
    events.add(fd, EventSet::IN, Box::new(serve))
}

/// Counts a connection while it exists.
struct Connected(Rc<Cell<usize>>);

impl Connected {
    fn new(clients: Rc<Cell<usize>>) -> Self {
        clients.set(clients.get() + 1);
        Self(clients)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Control {
    /// For a VM that is about to run. `layers` is the layer disk, if the VM has one.
    pub fn new(threads: Rc<Threads>, layers: Option<LayersHandle>, volumes: VolumesHandle, exit_event: Arc<ExitEvent>) -> Self {
        Self {
            threads,
            layers,
            volumes,
            exit_event,
            state: Cell::new(RunState::Running),
        }
    }

    /// Answers one packet; `false` if the reply could not be sent.
    fn reply(&self, events: &mut EventLoop, client: &OwnedFd, packet: Received) -> bool {
        let (reply, stops) = match wire::parse(&packet) {
            Ok(Request::Stop) => (Reply::Done, true),
            Ok(request) => (self.act(events, request, packet.files).unwrap_or_else(Reply::Error), false),
            Err(reason) => (Reply::Error(reason), false),
        };
        let sent = wire::send_reply(client, &reply);
        if stops {
            self.exit_event.set(ExitReason::Stopped);
        }
        sent.is_ok()
    }

    fn act(&self, events: &mut EventLoop, request: Request, files: Vec<OwnedFd>) -> Result<Reply, String> {
        let takes_files = matches!(request, Request::AppendExtents(_) | Request::AttachTap | Request::AttachDisk { .. });
        if !takes_files && !files.is_empty() {
            return Err("only append_extents, attach_tap and attach_disk take file descriptors".into());
        }
        match request {
            Request::AppendExtents(extents) => self.append(extents, files),
            Request::ReleaseExtents(first_sectors) => self.release(&first_sectors).map(|()| Reply::Done),
            Request::AttachTap => self.attach_tap(files).map(|()| Reply::Done),
            Request::AttachDisk { slot, read_only } => volumes::attach(&self.volumes, slot, read_only, files).map(|()| Reply::Done),
            Request::DetachDisk { slot } => volumes::detach(&self.volumes, slot),
            Request::Stats => self.threads.stats().map(Reply::Stats).map_err(|e| e.to_string()),
            Request::Pause => self.pause(events).map(|()| Reply::Done),
            Request::Resume => self.resume(events).map(|()| Reply::Done),
            Request::State => Ok(Reply::State(self.state.get())),
            // Executed by the caller, after the reply.
            Request::Stop => Ok(Reply::Done),
        }
    }

    /// The other threads first: then only this one accesses guest memory, and it does not while devices are paused.
    fn pause(&self, events: &mut EventLoop) -> Result<(), String> {
        self.threads.pause().map_err(|e| e.to_string())?;
        self.state.set(RunState::Paused);
        events.pause_devices().map_err(|e| format!("cannot pause the devices: {e}"))
    }

    fn resume(&self, events: &mut EventLoop) -> Result<(), String> {
        events.resume_devices().map_err(|e| format!("cannot resume the devices: {e}"))?;
        self.state.set(RunState::Running);
        self.threads.resume();
        Ok(())
    }

    /// The network device takes the TAP on its own thread, which may be busy or paused: the reply does not wait for it.
    fn attach_tap(&self, files: Vec<OwnedFd>) -> Result<(), String> {
        let slot = self
            .threads
            .tap()
            .ok_or("this VM has no network device (`network` of its spec is absent)")?;
        let [tap] = <[OwnedFd; 1]>::try_from(files)
            .map_err(|files| format!("attach_tap takes one file descriptor; {} came with it", files.len()))?;
        slot.attach(tap.into()).map_err(|e| e.to_string())
    }

    fn layers(&self) -> Result<&LayersHandle, String> {
        let layers = self.layers.as_ref();
        layers.ok_or_else(|| "this VM has no layer disk (`layers` of its spec is false)".into())
    }

    fn release(&self, first_sectors: &[u64]) -> Result<(), String> {
        let layers = self.layers()?;
        if first_sectors.is_empty() || first_sectors.len() > EXTENTS_PER_MESSAGE {
            return Err(format!(
                "a message releases 1 to {EXTENTS_PER_MESSAGE} extents, not {}",
                first_sectors.len()
            ));
        }
        layers.release(first_sectors).map_err(|e| e.to_string())
    }

    fn append(&self, extents: Vec<Extent>, files: Vec<OwnedFd>) -> Result<Reply, String> {
        let layers = self.layers()?;
        if extents.is_empty() || extents.len() > EXTENTS_PER_MESSAGE {
            return Err(format!(
                "a message appends 1 to {EXTENTS_PER_MESSAGE} extents, not {}",
                extents.len()
            ));
        }
        if extents.len() != files.len() {
            return Err(format!("{} extents came with {} file descriptors", extents.len(), files.len()));
        }
        let extents = extents
            .into_iter()
            .zip(files)
            .map(|(e, file)| (File::from(file), e.offset, e.length))
            .collect();
        let appended = layers.append(extents).map_err(|e| e.to_string())?;
        Ok(Reply::Appended {
            first_sectors: appended.first_sectors,
            capacity: appended.capacity,
        })
    }
}

#[cfg(test)]
mod tests;
