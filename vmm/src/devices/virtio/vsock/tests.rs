//! Tests of the vsock device over real rings and sockets; the test is both the guest's driver and the host's client.

mod credit;
mod hostile;
mod interleaving;
mod streams;

use super::{
    connection::REQUEST_DEADLINE,
    credit::RECEIVE_BUFFER_BYTES,
    packet::{
        HOST_CID, Header, MAX_PAYLOAD_BYTES, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN,
        SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND, TYPE_STREAM,
    },
    *,
};
use crate::devices::virtio::{
    lock,
    mock::{Driver, VERSION_1, readable, writable},
};
use proptest::prelude::*;
use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use vm_memory::{Bytes, GuestAddress};

const PORT: u32 = 1024;
/// Linux's receive buffers: one page, header and payload together.
const RX_BYTES: usize = 4096;
const RX_BUFFERS: usize = 64;

/// A guest's vsock driver that does nothing on its own.
struct Guest {
    driver: Driver,
    device: Arc<Mutex<Vsock>>,
    /// Address of each posted receive buffer, by head.
    posted: HashMap<u16, u64>,
    /// Receive buffers not posted.
    spare: Vec<u64>,
    tx: u64,
    inbox: VecDeque<(Header, Vec<u8>)>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guest {
    /// A device whose driver has not started yet.
    fn without_driver() -> Self {
        Self::offered(None)
    }

    /// The same with a port of the host for the guest.
    fn offered(offer: Option<Offer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock.sock");
        let device = Arc::new(Mutex::new(Vsock::new(UnixListener::bind(&path).unwrap(), offer).unwrap()));
        let mut driver = Driver::new(device.clone());
        let spare = (0..RX_BUFFERS).map(|_| driver.allocate(RX_BYTES)).collect();
        let tx = driver.allocate(HEADER_BYTES + MAX_PAYLOAD_BYTES + 64);
        Self {
            driver,
            device,
            posted: HashMap::new(),
            spare,
            tx,
            inbox: VecDeque::new(),
            path,
            _folder: folder,
        }
    }

    fn new() -> Self {
        let mut guest = Self::without_driver();
        guest.start();
        guest
    }

    fn start(&mut self) {
        let features = self.driver.offered();
        self.driver.start(features);
        self.post(RX_BUFFERS);
    }

    /// The driver resets the device and gets its buffers back, as after a reboot.
    fn restart(&mut self) {
        self.spare.extend(self.posted.drain().map(|(_, address)| address));
        self.start();
    }

    /// Expires deadlines as if `time` had passed.
    fn expire_after(&mut self, time: Duration) {
        lock(&self.device).muxer.expire(Instant::now() + time);
        // Delivers what that produced.
        self.driver.kick(RX);
    }

    /// Gives the device up to `count` receive buffers.
    fn post(&mut self, count: usize) {
        for _ in 0..count.min(self.spare.len()) {
            let address = self.spare.pop().unwrap();
            let head = self.driver.offer(RX, &[writable(address, RX_BYTES)]);
            self.posted.insert(head, address);
        }
        self.driver.kick(RX);
    }

    /// Lets the device run and takes what it sent, without posting the buffers again.
    fn pull(&mut self) {
        self.driver.serve_events();
        for (head, len) in self.driver.completed(RX) {
            let address = self.posted.remove(&head).unwrap();
            let bytes = self.driver.fetch(address, len as usize);
            let header = Header::parse(bytes[..HEADER_BYTES].try_into().unwrap());
            assert_eq!(
                header.len as usize,
                bytes.len() - HEADER_BYTES,
                "the length in the header is the payload's"
            );
            assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
            // An answer to a packet of another type repeats that type.
            assert!(header.kind == TYPE_STREAM || header.op == OP_RST);
            self.inbox.push_back((header, bytes[HEADER_BYTES..].to_vec()));
            self.spare.push(address);
        }
    }

    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        if self.inbox.is_empty() {
            self.pull();
            self.post(RX_BUFFERS);
            self.pull();
        }
        self.inbox.pop_front()
    }

    fn expect(&mut self, op: u16) -> (Header, Vec<u8>) {
        let (header, data) = self.next().unwrap_or_else(|| panic!("no packet where operation {op} was expected"));
        assert_eq!(header.op, op, "{header:?}");
        (header, data)
    }

    fn expect_silence(&mut self) {
        assert_eq!(self.next(), None);
    }

    /// Puts a packet into the transmit queue, without a notification.
    fn queue(&mut self, header: Header, payload: &[u8]) {
        let bytes = [&header.to_bytes()[..], payload].concat();
        self.driver.memory.write_slice(&bytes, GuestAddress(self.tx)).unwrap();
        // Linux: header and payload in descriptors of their own.
        let mut parts = vec![readable(self.tx, HEADER_BYTES)];
        if !payload.is_empty() {
            parts.push(readable(self.tx + HEADER_BYTES as u64, payload.len()));
        }
        self.driver.offer(TX, &parts);
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        self.queue(header, payload);
        self.driver.kick(TX);
        assert_eq!(self.driver.completed(TX).len(), 1);
    }

    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(&self.path).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    /// A client that requests [`PORT`].
    fn asking_client(&self) -> UnixStream {
        let mut client = self.client();
        client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        client
    }

    /// A stream open at both ends; `buf_alloc` is what the guest has room for.
    fn connected(&mut self, buf_alloc: u32) -> (UnixStream, Peer) {
        let mut client = self.asking_client();
        let (request, _) = self.expect(OP_REQUEST);
        assert_eq!(
            (request.dst_port, request.buf_alloc, request.fwd_cnt),
            (PORT, RECEIVE_BUFFER_BYTES, 0)
        );
        let peer = Peer {
            host_port: request.src_port,
            guest_port: PORT,
            buf_alloc,
            fwd_cnt: 0,
        };
        self.send(peer.packet(OP_RESPONSE), &[]);
        let mut line = vec![0; format!("OK {}\n", peer.host_port).len()];
        client.read_exact(&mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), format!("OK {}\n", peer.host_port));
        (client, peer)
    }

    fn streams(&self) -> usize {
        lock(&self.device).muxer.connection_count()
    }

    /// All data up to the first packet that carries none, which is returned too.
    fn collect(&mut self) -> (Vec<u8>, Option<Header>) {
        let mut all = Vec::new();
        while let Some((header, data)) = self.next() {
            if header.op != OP_RW {
                return (all, Some(header));
            }
            all.extend(data);
        }
        (all, None)
    }
}

/// The guest's end of one stream.
#[derive(Clone, Copy)]
struct Peer {
    host_port: u32,
    guest_port: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl Peer {
    fn packet(&self, op: u16) -> Header {
        Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: self.guest_port,
            dst_port: self.host_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            ..Header::default()
        }
    }

    fn data(&self, len: usize) -> Header {
        Header {
            len: len as u32,
            ..self.packet(OP_RW)
        }
    }

    fn shutdown(&self, flags: u32) -> Header {
        Header {
            flags,
            ..self.packet(OP_SHUTDOWN)
        }
    }
}

/// The client reads the end of the stream and no byte.
fn assert_closed(mut client: UnixStream) {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 13 + i / 255) as u8).collect()
}

#[test]
fn configuration_is_the_address_and_no_feature_is_offered() {
    let mut guest = Guest::new();
    assert_eq!(
        (guest.driver.read(8), guest.driver.read(0x100), guest.driver.read(0x104)),
        (19, 3, 0)
    );
    assert_eq!(guest.driver.offered() & 0xff_ffff, 0);
}
