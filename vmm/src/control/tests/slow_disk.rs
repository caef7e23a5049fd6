//! A disk whose storage does not answer delays nothing but its own requests.

use super::*;
use crate::devices::virtio::{
    Buffers,
    block::Disk,
    mock::{Driver, readable, writable},
    vsock::Vsock,
};
use std::{
    os::unix::net::{UnixListener, UnixStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread::sleep,
    time::{Duration, Instant},
};

/// Far below the time after which a thread counts as stuck (5 s).
const AT_ONCE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A disk that says when a read begins, and ends it when it is told to.
#[derive(Clone)]
struct Stuck {
    begun: Sender<()>,
    release: Arc<Mutex<Receiver<()>>>,
}

impl Disk for Stuck {
    fn id(&self) -> &'static str {
        "stuck"
    }
    fn features(&self) -> u64 {
        0
    }
    fn capacity(&self) -> u64 {
        4096
    }
    fn read(&self, _: u64, mut into: Buffers<'_>) -> io::Result<()> {
        self.begun.send(()).unwrap();
        self.release.lock().unwrap().recv().unwrap();
        into.write_all(&[7; 512]).map_err(io::Error::other)
    }
    fn write(&self, _: u64, _: Buffers<'_>) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A VM with a stuck disk on a thread of its own, and a vsock device on the main loop, with the control socket.
struct Machine {
    disk: Driver,
    /// Its loop is the main one, and the server's.
    vsock: Driver,
    threads: Rc<Threads>,
    exit_event: Arc<ExitEvent>,
    control: OwnedFd,
    begun: Receiver<()>,
    release: Sender<()>,
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let ((begins, begun), (release, released)) = (channel(), channel());
        let stuck = Stuck {
            begun: begins,
            release: Arc::new(Mutex::new(released)),
        };
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let (mut disk, thread) = Driver::served_by(Arc::new(Mutex::new(Block::new(stuck))), |attach| {
            // Allows what a test harness does; `tests/seccomp.rs` tests the thread's own filter.
            let filter = Filter::absent(libc::SYS_kexec_load).unwrap();
            DeviceThread::start("stuck", filter, exit_event.clone(), attach).unwrap()
        });
        let features = disk.offered();
        disk.start(features);
        let folder = tempfile::tempdir().unwrap();
        let host = UnixListener::bind(folder.path().join("vsock")).unwrap();
        let mut vsock = Driver::started(Arc::new(Mutex::new(Vsock::new(host, None).unwrap())));
        let threads = disks_alone(&exit_event, vec![thread]);
        let (listening, address) = listener();
        let control = Control::new(threads.clone(), None, VolumesHandle::default(), exit_event.clone());
        serve(&mut vsock.events, listening, control).unwrap();
        let control = unix(SockType::SeqPacket);
        connect(control.as_raw_fd(), &address).unwrap();
        threads.resume();
        Self {
            disk,
            vsock,
            threads,
            exit_event,
            control,
            begun,
            release,
            folder,
        }
    }

    /// A request that the main loop answers at once.
    fn ask(&mut self, request: &Request) -> Reply {
        let start = Instant::now();
        send(self.control.as_raw_fd(), &serde_json::to_vec(request).unwrap(), MsgFlags::empty()).unwrap();
        self.vsock.serve_events();
        let mut bytes = vec![0; MESSAGE_MAX_BYTES];
        let length = recv(self.control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap();
        assert!(start.elapsed() < AT_ONCE, "{request:?} took {:?}", start.elapsed());
        serde_json::from_slice(&bytes[..length]).unwrap()
    }

    /// The guest reads a sector, whose data and status come to the returned address; returns when the storage has been asked.
    fn begin_read(&mut self) -> u64 {
        let head = self.disk.place(&[0; 16]);
        let data = self.disk.place(&[0xee; 513]);
        self.disk.offer(0, &[readable(head, 16), writable(data, 513)]);
        self.disk.write(0x50, 0);
        self.begun.recv_timeout(TIMEOUT).unwrap();
        data
    }

    fn expect_completed(&mut self) {
        let start = Instant::now();
        while self.disk.completed(0).is_empty() {
            assert!(start.elapsed() < TIMEOUT, "the request is lost");
            sleep(Duration::from_millis(1));
        }
    }

    /// A client of the host reaches the guest's driver.
    fn vsock_passes(&mut self) {
        let buffer = self.vsock.allocate(4096);
        self.vsock.offer(0, &[writable(buffer, 4096)]);
        self.vsock.kick(0);
        let mut client = UnixStream::connect(self.folder.path().join("vsock")).unwrap();
        client.write_all(b"CONNECT 1024\n").unwrap();
        self.vsock.serve_events();
        assert_eq!(self.vsock.completed(0).len(), 1, "the guest is asked to accept");
    }
}

#[test]
fn vsock_registers_and_control_socket_do_not_wait_for_a_read_and_nothing_is_returned_while_paused() {
    let mut machine = Machine::new();
    let data = machine.begin_read();
    machine.vsock_passes();
    assert_eq!((machine.disk.read(0x100), machine.disk.status()), (8, 15));
    assert!(matches!(machine.ask(&Request::Stats), Reply::Stats(_)));
    assert_eq!(machine.ask(&Request::Pause), Reply::Done);
    assert_eq!(machine.ask(&Request::State), Reply::State(RunState::Paused));
    machine.release.send(()).unwrap();
    sleep(Duration::from_millis(20));
    assert!(machine.disk.completed(0).is_empty(), "the guest is told while it is paused");
    assert_eq!(machine.ask(&Request::Resume), Reply::Done);
    machine.expect_completed();
    assert_eq!(machine.disk.fetch(data, 513), [&[7; 512][..], &[0]].concat());
    machine.begin_read();
    machine.release.send(()).unwrap();
    machine.expect_completed();
}

#[test]
fn a_vm_is_stopped_while_a_read_is_stuck() {
    let mut machine = Machine::new();
    machine.begin_read();
    assert_eq!(machine.ask(&Request::Stop), Reply::Done);
    assert_eq!(machine.exit_event.reason(), Some(&ExitReason::Stopped));
    let start = Instant::now();
    machine.threads.stop().unwrap();
    assert!(start.elapsed() < AT_ONCE, "the process ends after {:?}", start.elapsed());
    machine.release.send(()).unwrap();
    sleep(Duration::from_millis(20));
    assert!(machine.disk.completed(0).is_empty(), "the guest no longer exists");
}

/// The driver frees its buffers after a reset.
#[test]
fn a_reset_waits_for_the_read_whose_buffer_the_driver_frees() {
    let mut machine = Machine::new();
    let data = machine.begin_read();
    let release = machine.release.clone();
    let released = std::thread::spawn(move || {
        sleep(Duration::from_millis(30));
        release.send(()).unwrap();
    });
    machine.disk.write(0x70, 0);
    assert_eq!(machine.disk.fetch(data, 512), [7; 512]);
    released.join().unwrap();
    let features = machine.disk.offered();
    machine.disk.start(features);
    machine.begin_read();
    machine.release.send(()).unwrap();
    machine.expect_completed();
    assert_eq!(machine.disk.completed(0), [], "the request before the reset is not returned");
}
