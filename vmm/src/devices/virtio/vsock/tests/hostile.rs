//! Guests and clients that violate the protocol, flood, or stop responding.

use super::*;

#[test]
fn clients_that_do_not_speak_the_protocol_are_closed() {
    let mut guest = Guest::new();
    for line in ["GET / HTTP/1.1\r\n", "CONNECT x\n", &"1".repeat(64), "\n"] {
        let mut client = guest.client();
        client.write_all(line.as_bytes()).unwrap();
        guest.expect_silence();
        // Unread bytes of the client make this a connection reset.
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "{line}");
    }
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_hung_up_client_does_not_keep_the_loop_busy() {
    let mut guest = Guest::new();
    let (mut client, _) = guest.connected(1);
    client.write_all(b"more than one byte").unwrap();
    drop(client);
    while guest.next().is_some() {}
    let events = lock(&guest.device).muxer.events();
    let watch = vmm_sys_util::epoll::Epoll::new().unwrap();
    let interest = vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
    watch.ctl(vmm_sys_util::epoll::ControlOperation::Add, events, interest).unwrap();
    assert_eq!(watch.wait(0, &mut [interest]).unwrap(), 0);
}

#[test]
fn unusable_receive_buffers_are_returned_and_the_next_is_used() {
    let mut guest = Guest::without_driver();
    guest.driver.start(VERSION_1);
    let _client = guest.asking_client();
    let (read_only, tiny) = (guest.spare[0], guest.spare[1]);
    guest.driver.offer(RX, &[readable(read_only, RX_BYTES)]);
    guest.driver.offer(RX, &[writable(tiny, HEADER_BYTES)]);
    guest.driver.kick(RX);
    let lens: Vec<u32> = guest.driver.completed(RX).into_iter().map(|(_, len)| len).collect();
    assert_eq!(lens, [0, 0]);
    guest.post(1);
    guest.pull();
    assert_eq!(guest.inbox.pop_front().unwrap().0.op, OP_REQUEST);
}

#[test]
fn packets_of_no_stream_are_reset_or_dropped() {
    let mut guest = Guest::new();
    let peer = Peer {
        host_port: 77,
        guest_port: 88,
        buf_alloc: 0,
        fwd_cnt: 0,
    };
    for op in [OP_RESPONSE, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, 0, 8, u16::MAX] {
        guest.send(peer.packet(op), &[]);
        guest.expect(OP_RST);
    }
    guest.send(peer.packet(OP_RST), &[]);
    guest.send(
        Header {
            src_cid: 4,
            ..peer.packet(OP_REQUEST)
        },
        &[],
    );
    guest.send(
        Header {
            dst_cid: 1,
            ..peer.packet(OP_REQUEST)
        },
        &[],
    );
    guest.expect_silence();
    // Shorter than a header, or empty.
    for len in [0, HEADER_BYTES - 1] {
        let address = guest.tx;
        guest.driver.exchange(TX, &[readable(address, len)]);
    }
    guest.expect_silence();
}

#[test]
fn a_header_may_be_split_and_a_missing_payload_ends_the_stream() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 16);
    let bytes = [&peer.data(6).to_bytes()[..], b"sixsix"].concat();
    guest.driver.memory.write_slice(&bytes, GuestAddress(guest.tx)).unwrap();
    let at = guest.tx;
    guest
        .driver
        .exchange(TX, &[readable(at, 10), readable(at + 10, 36), readable(at + 46, 4)]);
    let mut got = [0; 6];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"sixsix");
    guest.send(peer.data(7), b"sixsix");
    guest.expect(OP_RST);
    assert_closed(client);
    let (client, peer) = guest.connected(1 << 16);
    guest.send(Header { kind: 2, ..peer.data(1) }, b"x");
    assert_eq!(guest.next().unwrap().0.op, OP_RST, "not a stream socket");
    drop(client);
}

#[test]
fn deadlines_end_slow_clients_and_slow_guests() {
    let mut guest = Guest::new();
    let mut slow = guest.client();
    slow.write_all(b"CONN").unwrap();
    let asking = guest.asking_client();
    guest.expect(OP_REQUEST);
    let (closing, peer) = guest.connected(1 << 16);
    let (open, _) = guest.connected(1 << 16);
    drop(closing);
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags & SHUTDOWN_RCV, SHUTDOWN_RCV);
    while guest.next().is_some() {}
    assert_eq!(guest.streams(), 3);
    guest.expire_after(Duration::from_secs(9));
    assert_eq!((guest.expect(OP_RST).0.dst_port, guest.streams()), (peer.guest_port, 2));
    guest.expire_after(REQUEST_DEADLINE);
    guest.expect(OP_RST);
    assert_closed(asking);
    assert!(matches!(slow.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(guest.streams(), 1, "an open stream has no deadline");
    drop(open);
}

#[test]
fn the_number_of_clients_is_limited() {
    let mut guest = Guest::new();
    let mut clients = Vec::new();
    for _ in 0..muxer::MAX_CONNECTIONS {
        clients.push(guest.client());
        guest.driver.serve_events();
    }
    assert_closed({
        let client = guest.client();
        guest.driver.serve_events();
        client
    });
    clients.pop();
    guest.driver.serve_events();
    let client = guest.asking_client();
    guest.expect(OP_REQUEST);
    drop(client);
}

#[test]
fn a_flood_of_invalid_packets_waits_until_the_guest_takes_the_answers() {
    let mut guest = Guest::without_driver();
    let features = guest.driver.offered();
    guest.driver.start(features);
    let peer = Peer {
        host_port: 77,
        guest_port: 88,
        buf_alloc: 0,
        fwd_cnt: 0,
    };
    let mut taken = 0;
    for round in 0..3 {
        while guest.driver.queues[TX].has_room() {
            guest.queue(peer.packet(OP_RW), &[]);
        }
        guest.driver.kick(TX);
        let done = guest.driver.completed(TX).len();
        assert!(round > 0 || done > 0);
        taken += done;
    }
    assert_eq!(taken, 256, "no further answers are kept");
    let answers = std::iter::from_fn(|| guest.next()).count();
    taken += guest.driver.completed(TX).len();
    assert_eq!(answers, taken, "every packet taken is answered once, and the queue moves again");
    assert!(taken > 256);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random packets: no panic, no unbounded state, and the device still works.
    #[test]
    fn random_packets_are_survived(
        packets in proptest::collection::vec((0u16..10, 0u32..4, any::<u32>(), any::<u32>(), 0usize..300, any::<u8>()), 1..120),
    ) {
        let mut guest = Guest::new();
        let (client, peer) = guest.connected(1000);
        client.set_nonblocking(true).unwrap();
        for (op, flags, buf_alloc, fwd_cnt, len, odd) in packets {
            let mut header = Header { flags, buf_alloc, fwd_cnt, ..peer.data(len) };
            header.op = op;
            match odd {
                0 => header.len = buf_alloc,
                1 => header.kind = 2,
                2 => header.dst_port = fwd_cnt,
                3 => header.src_cid = u64::from(fwd_cnt),
                4..30 => drop((&client).write(&[1; 500])),
                30..60 => drop((&client).read(&mut [0; 4000])),
                _ => (),
            }
            guest.send(header, &pattern(len));
            while guest.next().is_some() {}
        }
        drop(client);
        guest.send(peer.packet(OP_RST), &[]);
        while guest.next().is_some() {}
        prop_assert_eq!(guest.streams(), 0);
        let (mut client, peer) = guest.connected(1000);
        guest.send(peer.data(2), b"ok");
        let mut got = [0; 2];
        client.read_exact(&mut got).unwrap();
        prop_assert_eq!(&got, b"ok");
    }
}
