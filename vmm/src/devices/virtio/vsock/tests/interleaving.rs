//! In any order of writes, reads and closes of both ends, all bytes arrive once and in order, and both ends close.

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    ClientWrites(usize),
    ClientReads(usize),
    GuestWrites(usize),
    GuestReads(usize),
    GuestPosts(usize),
    ClientCloses,
    GuestCloses,
    GuestUpdatesCredit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..60_000).prop_map(Step::ClientWrites),
        3 => (1usize..100_000).prop_map(Step::ClientReads),
        4 => (1usize..90_000).prop_map(Step::GuestWrites),
        3 => (1usize..60_000).prop_map(Step::GuestReads),
        4 => (1usize..20).prop_map(Step::GuestPosts),
        1 => Just(Step::ClientCloses),
        1 => Just(Step::GuestCloses),
        2 => Just(Step::GuestUpdatesCredit),
    ]
}

/// Both ends of one stream, with everything each has sent and received.
struct Stream {
    guest: Guest,
    client: UnixStream,
    peer: Peer,
    client_sent: Vec<u8>,
    client_got: Vec<u8>,
    client_closed: bool,
    client_saw_end: bool,
    guest_sent: Vec<u8>,
    guest_got: Vec<u8>,
    guest_read: usize,
    guest_closed: bool,
    guest_saw_end: bool,
    /// The last `fwd_cnt` of the host.
    host_fwd_cnt: u32,
}

impl Stream {
    fn new(buf_alloc: u32) -> Self {
        let mut guest = Guest::new();
        let (client, peer) = guest.connected(buf_alloc);
        client.set_nonblocking(true).unwrap();
        Self {
            guest,
            client,
            peer,
            client_sent: Vec::new(),
            client_got: Vec::new(),
            client_closed: false,
            client_saw_end: false,
            guest_sent: Vec::new(),
            guest_got: Vec::new(),
            guest_read: 0,
            guest_closed: false,
            guest_saw_end: false,
            host_fwd_cnt: 0,
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::ClientWrites(len) if !self.client_closed => {
                let bytes: Vec<u8> = (0..len).map(|i| ((self.client_sent.len() + i) * 7) as u8).collect();
                if let Ok(n) = self.client.write(&bytes) {
                    self.client_sent.extend_from_slice(&bytes[..n]);
                }
            }
            Step::ClientReads(len) => {
                let mut bytes = vec![0; len];
                match self.client.read(&mut bytes) {
                    Ok(0) => self.client_saw_end = true,
                    Ok(n) => self.client_got.extend_from_slice(&bytes[..n]),
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
            Step::GuestWrites(len) if !self.guest_closed => {
                let room = RECEIVE_BUFFER_BYTES - (self.guest_sent.len() as u32 - self.host_fwd_cnt);
                let len = len.min(room as usize).min(MAX_PAYLOAD_BYTES);
                let bytes: Vec<u8> = (0..len).map(|i| ((self.guest_sent.len() + i) * 11) as u8).collect();
                self.guest.send(self.peer.data(len), &bytes);
                self.guest_sent.extend(bytes);
            }
            Step::GuestReads(len) => {
                self.guest_read = (self.guest_read + len).min(self.guest_got.len());
                self.peer.fwd_cnt = self.guest_read as u32;
            }
            Step::GuestUpdatesCredit => self.guest.send(self.peer.packet(OP_CREDIT_UPDATE), &[]),
            Step::GuestPosts(count) => self.guest.post(count),
            Step::ClientCloses if !self.client_closed => {
                self.client.shutdown(Shutdown::Write).unwrap();
                self.client_closed = true;
            }
            Step::GuestCloses if !self.guest_closed => {
                self.guest.send(self.peer.shutdown(SHUTDOWN_SEND), &[]);
                self.guest_closed = true;
            }
            _ => (),
        }
        self.take_packets();
    }

    fn take_packets(&mut self) {
        self.guest.pull();
        while let Some((header, data)) = self.guest.inbox.pop_front() {
            assert!(!self.guest_saw_end || header.op != OP_RW, "no data after the end");
            self.host_fwd_cnt = header.fwd_cnt;
            assert!(header.fwd_cnt as usize <= self.guest_sent.len());
            match header.op {
                OP_RW => self.guest_got.extend(data),
                OP_SHUTDOWN => self.guest_saw_end |= header.flags & SHUTDOWN_SEND != 0,
                OP_CREDIT_REQUEST => self.guest.send(self.peer.packet(OP_CREDIT_UPDATE), &[]),
                op => assert_eq!(op, OP_CREDIT_UPDATE),
            }
            assert!(
                self.guest_got.len() - self.guest_read <= self.peer.buf_alloc as usize,
                "more than the guest has room for"
            );
            assert!(
                self.guest_got[..] == self.client_sent[..self.guest_got.len()],
                "the client's bytes in order"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_byte_arrives_in_order(buf_alloc in 1u32..200_000, steps in proptest::collection::vec(step(), 1..120)) {
        let mut stream = Stream::new(buf_alloc);
        for step in steps {
            stream.apply(step);
        }
        // Let both ends finish; with the smallest buffers an iteration moves one byte.
        for _ in 0..1_000_000 {
            if stream.client_saw_end && stream.guest_saw_end {
                break;
            }
            for step in [
                Step::ClientCloses, Step::GuestCloses, Step::GuestPosts(RX_BUFFERS), Step::GuestReads(usize::MAX / 2),
                Step::GuestUpdatesCredit, Step::ClientReads(100_000),
            ] {
                stream.apply(step);
            }
        }
        prop_assert!(stream.client_saw_end && stream.guest_saw_end, "both see the end");
        prop_assert!(stream.client_got == stream.guest_sent);
        prop_assert!(stream.guest_got == stream.client_sent);
    }
}
