//! Tests of the protocol over a real socket, with a VM without vCPUs.

mod slow_disk;
mod volumes;

use super::*;
use crate::{
    device_thread::DeviceThread,
    devices::{
        Buses,
        virtio::block::{Block, Layers, Volume},
    },
    seccomp::{Filter, VCPU},
    vcpu::{VcpuContext, VcpuThreads},
};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen, recv, send,
    sendmsg, socket,
};
use proptest::prelude::*;
use std::{
    io::{IoSlice, Write},
    sync::Mutex,
};
use vm_spec::control::{MESSAGE_MAX_BYTES, Stats};

struct Server {
    events: EventLoop,
    exit_event: Arc<ExitEvent>,
    address: UnixAddr,
}

fn no_vcpus(exit_event: &Arc<ExitEvent>) -> Rc<Threads> {
    disks_alone(exit_event, Vec::new())
}

fn disks_alone(exit_event: &Arc<ExitEvent>, disks: Vec<DeviceThread>) -> Rc<Threads> {
    let context = VcpuContext {
        buses: Buses::default(),
        conversions: None,
        certificates: None,
        exit_event: exit_event.clone(),
        watchdog: Arc::default(),
        filter: Filter::allowing(VCPU).unwrap(),
    };
    Rc::new(Threads::new(VcpuThreads::start(Vec::new(), context).unwrap(), None, disks))
}

fn unix(kind: SockType) -> OwnedFd {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// A listening socket at an abstract address that the kernel chooses.
fn listener() -> (OwnedFd, UnixAddr) {
    let listener = unix(SockType::SeqPacket);
    bind(listener.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    let address = getsockname(listener.as_raw_fd()).unwrap();
    (listener, address)
}

impl Server {
    fn new(layers: bool) -> Self {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let threads = no_vcpus(&exit_event);
        let layers = layers.then(|| LayersHandle::new(Arc::new(Mutex::new(Block::new(Layers::new())))));
        let volumes = [0, 1].map(|n| Arc::new(Mutex::new(Block::new(Volume::new(n).unwrap()))));
        let volumes = VolumesHandle::new(volumes.into(), 1 << 20);
        let control = Control::new(threads, layers, volumes, exit_event.clone());
        Self::serving(EventLoop::new().unwrap(), control, exit_event)
    }

    fn serving(mut events: EventLoop, control: Control, exit_event: Arc<ExitEvent>) -> Self {
        let (listener, address) = listener();
        serve(&mut events, listener, control).unwrap();
        Self {
            events,
            exit_event,
            address,
        }
    }

    fn client(&mut self) -> OwnedFd {
        let client = unix(SockType::SeqPacket);
        connect(client.as_raw_fd(), &self.address).unwrap();
        self.events.run_once(0).unwrap();
        client
    }

    fn raw(&mut self, client: &OwnedFd, bytes: &[u8], files: &[File]) -> Option<Reply> {
        let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let beside = if files.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(client.as_raw_fd(), &[IoSlice::new(bytes)], beside, MsgFlags::empty(), None).unwrap();
        self.events.run_once(0).unwrap();
        let mut bytes = vec![0; MESSAGE_MAX_BYTES];
        let length = recv(client.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
        serde_json::from_slice(&bytes[..length]).ok()
    }

    fn ask(&mut self, client: &OwnedFd, request: &Request, files: &[File]) -> Reply {
        self.raw(client, &serde_json::to_vec(request).unwrap(), files).unwrap()
    }
}

fn layer(bytes: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; bytes]).unwrap();
    file
}

/// A file that is open for reading alone.
fn read_only(file: &File) -> File {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

fn reason(reply: Reply) -> String {
    match reply {
        Reply::Error(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_serves_many_requests() {
    let mut server = Server::new(true);
    let client = server.client();
    assert!(matches!(
        server.ask(&client, &Request::Stats, &[]),
        Reply::Stats(Stats { exits: 0, .. })
    ));
    let state = |server: &mut Server| server.ask(&client, &Request::State, &[]);
    assert_eq!(state(&mut server), Reply::State(RunState::Running));
    for _ in 0..2 {
        assert_eq!(server.ask(&client, &Request::Pause, &[]), Reply::Done);
        assert_eq!(state(&mut server), Reply::State(RunState::Paused));
    }
    assert_eq!(server.ask(&client, &Request::Resume, &[]), Reply::Done);
    assert_eq!(state(&mut server), Reply::State(RunState::Running));
    assert!(server.exit_event.reason().is_none());
    assert_eq!(server.ask(&client, &Request::Stop, &[]), Reply::Done);
    assert_eq!(server.exit_event.reason(), Some(&ExitReason::Stopped));
}

#[test]
fn extents_are_matched_with_their_files_in_order() {
    let mut server = Server::new(true);
    let client = server.client();
    let extents = vec![
        Extent { offset: 0, length: 8192 },
        Extent {
            offset: 4096,
            length: 4096,
        },
    ];
    let reply = server.ask(&client, &Request::AppendExtents(extents), &[layer(8192), layer(8192)]);
    assert_eq!(
        reply,
        Reply::Appended {
            first_sectors: vec![0, 16],
            capacity: 24
        }
    );
    let second = server.client();
    let reply = server.ask(
        &second,
        &Request::AppendExtents(vec![Extent { offset: 0, length: 4096 }]),
        &[layer(4096)],
    );
    assert_eq!(
        reply,
        Reply::Appended {
            first_sectors: vec![24],
            capacity: 32
        }
    );
}

#[test]
fn invalid_requests_are_refused_with_a_reason_and_the_connection_stays_open() {
    let mut server = Server::new(true);
    let client = server.client();
    let extent = |length| Extent { offset: 0, length };
    let mut refuse = |request: Request, files: &[File]| reason(server.ask(&client, &request, files));
    assert!(refuse(Request::AppendExtents(vec![]), &[]).contains("1 to 16 extents"));
    assert!(refuse(Request::AppendExtents(vec![extent(4096)]), &[]).contains("1 extents came with 0 file"));
    assert!(refuse(Request::AppendExtents(vec![extent(8192)]), &[layer(4096)]).contains("outside the file"));
    assert!(refuse(Request::AppendExtents(vec![extent(1)]), &[layer(4096)]).contains("multiples of 4096"));
    assert!(refuse(Request::ReleaseExtents(vec![]), &[]).contains("1 to 16 extents"));
    assert!(refuse(Request::ReleaseExtents(vec![0; 17]), &[]).contains("1 to 16 extents"));
    assert!(refuse(Request::ReleaseExtents(vec![8]), &[]).contains("begins at sector 8"));
    assert!(refuse(Request::Stats, &[layer(1)]).contains("only append_extents, attach_tap"));
    assert!(refuse(Request::AttachTap, &[layer(1)]).contains("no network device"));
    let none = reason(server.raw(&client, b"{\"frobnicate\":1}", &[]).unwrap());
    assert!(none.starts_with("not a request"), "{none}");
    let long = reason(server.raw(&client, &vec![b' '; MESSAGE_MAX_BYTES + 1], &[]).unwrap());
    assert!(long.starts_with("a message has at most"), "{long}");
    let many: Vec<_> = (0..=EXTENTS_PER_MESSAGE).map(|_| layer(1)).collect();
    let many = reason(server.ask(&client, &Request::Stats, &many));
    assert!(many.starts_with("a message has at most"), "{many}");
    assert_eq!(server.ask(&client, &Request::Resume, &[]), Reply::Done);
    let mut bare = Server::new(false);
    let client = bare.client();
    assert!(reason(bare.ask(&client, &Request::ReleaseExtents(vec![0]), &[])).contains("no layer disk"));
    assert!(reason(bare.ask(&client, &Request::AppendExtents(vec![extent(4096)]), &[layer(4096)])).contains("no layer disk"));
}

#[test]
fn the_number_of_clients_is_limited() {
    let mut server = Server::new(false);
    let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| server.client()).collect();
    let refused = server.client();
    assert_eq!(
        recv(refused.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT),
        Ok(0),
        "closed at once"
    );
    clients.pop();
    server.events.run_once(0).unwrap();
    let taken = server.client();
    assert_eq!(server.ask(&taken, &Request::Resume, &[]), Reply::Done);
}

#[test]
fn only_a_listening_seqpacket_socket_is_accepted() {
    let control = || {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        Control::new(no_vcpus(&exit_event), None, VolumesHandle::default(), exit_event)
    };
    let mut events = EventLoop::new().unwrap();
    for wrong in [unix(SockType::SeqPacket), unix(SockType::Stream), layer(1).into()] {
        assert!(matches!(serve(&mut events, wrong, control()), Err(ControlError::NotAListener)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packet_is_answered(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..8)) {
        let mut server = Server::new(true);
        let client = server.client();
        for packet in packets {
            prop_assert!(matches!(server.raw(&client, &packet, &[]), Some(Reply::Error(_))));
        }
    }
}
