//! Packets of arbitrary bytes, and almost valid messages, with any number of files.
#![no_main]

use casemate_vmm::{
    control::{Control, serve},
    devices::{
        Buses,
        virtio::block::{Block, Layers, LayersHandle, Volume, VolumesHandle},
    },
    event_loop::EventLoop,
    exit_reason::ExitEvent,
    seccomp::{Filter, VCPU},
    threads::Threads,
    vcpu::{VcpuContext, VcpuThreads},
};
use casemate_vmm_fuzz::steps;
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen, recv, sendmsg,
    socket,
};
use std::{
    fs::File,
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::{Arc, LazyLock, Mutex},
};
use vm_spec::control::{Extent, MESSAGE_MAX_BYTES, Reply, Request};

/// Two that may be written, the second one under a name that opens it for reading alone, and none that can be a disk.
static FILES: LazyLock<[File; 4]> = LazyLock::new(|| {
    let [first, second] = std::array::from_fn(|_| {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 << 10).expect("its length");
        file
    });
    let reader = File::open(format!("/proc/self/fd/{}", second.as_raw_fd())).expect("a descriptor");
    [first, second, reader, File::open("/dev/null").expect("a device")]
});

fn seqpacket() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
}

fuzz_target!(|bytes: &[u8]| {
    let listener = seqpacket();
    bind(listener.as_raw_fd(), &UnixAddr::new_unnamed()).expect("an address");
    listen(&listener, Backlog::new(4).expect("a backlog")).expect("a listener");
    let address: UnixAddr = getsockname(listener.as_raw_fd()).expect("its address");
    let exit_event = Arc::new(ExitEvent::new().expect("an exit event"));
    let context = VcpuContext {
        buses: Buses::default(),
        conversions: None,
        certificates: None,
        exit_event: exit_event.clone(),
        watchdog: Arc::default(),
        filter: Filter::allowing(VCPU).expect("a filter"),
    };
    let vcpus = VcpuThreads::start(Vec::new(), context).expect("no threads");
    let threads = Rc::new(Threads::new(vcpus, None, Vec::new()));
    let layers = LayersHandle::new(Arc::new(Mutex::new(Block::new(Layers::new()))));
    let slots = (0..2).map(|n| Arc::new(Mutex::new(Block::new(Volume::new(n).expect("a slot")))));
    let volumes = VolumesHandle::new(slots.collect(), 1 << 20);
    let mut events = EventLoop::new().expect("an event loop");
    serve(&mut events, listener, Control::new(threads, Some(layers), volumes, exit_event.clone())).expect("a listening socket");
    let client = seqpacket();
    connect(client.as_raw_fd(), &address).expect("the VMM listens");
    events.run_once(0).expect("epoll works");

    let mut answer = vec![0; MESSAGE_MAX_BYTES];
    steps(bytes, |input| {
        let mut message = match input.int_in_range(0..=10u8)? {
            0 => input.bytes(input.len().min(200))?.to_vec(),
            1 => {
                let extents = (0..input.int_in_range(0..=18u8)?)
                    .map(|_| {
                        Ok(Extent {
                            offset: input.int_in_range(0..=20u64)? * 2048,
                            length: input.int_in_range(0..=20u64)? * 2048,
                        })
                    })
                    .collect::<libfuzzer_sys::arbitrary::Result<_>>()?;
                serde_json::to_vec(&Request::AppendExtents(extents)).expect("JSON")
            }
            n => {
                let release = Request::ReleaseExtents(vec![input.int_in_range(0..=64u64)? * 8]);
                let slot = input.int_in_range(0..=2u8)?;
                let attach = Request::AttachDisk { slot, read_only: input.arbitrary()? };
                let detach = Request::DetachDisk { slot };
                let plain = [
                    release, Request::AttachTap, Request::Stats, Request::Stop, Request::Pause, Request::Resume, Request::State, attach, detach,
                ];
                serde_json::to_vec(&plain[usize::from(n) - 2]).expect("JSON")
            }
        };
        if input.ratio(1, 4)? && !message.is_empty() {
            let at = input.choose_index(message.len())?;
            message[at] = input.arbitrary()?;
        }
        if message.is_empty() {
            return Ok(());
        }
        // One is what attach_disk takes.
        let count = if input.arbitrary()? { 1 } else { input.int_in_range(0..=18usize)? };
        let numbers: Vec<_> = (0..count)
            .map(|_| Ok(FILES[input.choose_index(FILES.len())?].as_raw_fd()))
            .collect::<libfuzzer_sys::arbitrary::Result<_>>()?;
        let rights = [ControlMessage::ScmRights(&numbers)];
        let beside = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(client.as_raw_fd(), &[IoSlice::new(&message)], beside, MsgFlags::MSG_NOSIGNAL, None).expect("the VMM reads");
        events.run_once(0).expect("epoll works");
        let length = recv(client.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).expect("every packet is answered");
        serde_json::from_slice::<Reply>(&answer[..length]).expect("with a reply");
        Ok(())
    });
});
