//! The life of a stream: connect, data, half-close, close.

use super::*;

#[test]
fn bytes_pass_both_ways() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 16);
    client.write_all(b"to the guest").unwrap();
    assert_eq!(guest.expect(OP_RW).1, b"to the guest");
    guest.send(peer.data(11), b"to the host");
    let mut answer = [0; 11];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"to the host");
    guest.expect_silence();
}

#[test]
fn bytes_written_before_the_answer_are_not_lost() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNECT 1024\nearly").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (request, _) = guest.expect(OP_REQUEST);
    guest.expect_silence();
    let peer = Peer {
        host_port: request.src_port,
        guest_port: PORT,
        buf_alloc: 4096,
        fwd_cnt: 0,
    };
    guest.send(peer.packet(OP_RESPONSE), &[]);
    assert_eq!(guest.expect(OP_RW).1, b"early");
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags, SHUTDOWN_SEND);
}

#[test]
fn a_client_may_connect_before_the_guest_has_booted() {
    let mut guest = Guest::without_driver();
    let client = guest.asking_client();
    guest.driver.serve_events();
    guest.driver.serve_events();
    assert_eq!(guest.streams(), 1);
    guest.start();
    guest.expect(OP_REQUEST);
    // After a reset the driver no longer knows that request.
    guest.restart();
    assert_closed(client);
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_refused_client_sees_its_connection_closed() {
    let mut guest = Guest::new();
    let client = guest.asking_client();
    let (request, _) = guest.expect(OP_REQUEST);
    let peer = Peer {
        host_port: request.src_port,
        guest_port: PORT,
        buf_alloc: 0,
        fwd_cnt: 0,
    };
    guest.send(peer.packet(OP_RST), &[]);
    assert_closed(client);
    guest.expect_silence();
    assert_eq!(guest.streams(), 0);
}

#[test]
fn half_closes_pass_both_ways_after_all_bytes() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 20);
    let message = pattern(100_000);
    let sent = message.clone();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    let end = loop {
        let (data, end) = guest.collect();
        got.extend(data);
        if let Some(end) = end {
            break end;
        }
        std::thread::yield_now();
    };
    writing.join().unwrap();
    assert!(got == message);
    assert_eq!((end.op, end.flags), (OP_SHUTDOWN, SHUTDOWN_SEND));
    // The other direction is still open.
    guest.send(peer.data(4), b"last");
    guest.send(peer.shutdown(SHUTDOWN_SEND), &[]);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
    // Both halves are closed, so the socket hangs up and the guest gets the RCV flag too.
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags, SHUTDOWN_BOTH);
    guest.send(peer.packet(OP_RST), &[]);
    assert_eq!(guest.streams(), 0);
}

#[test]
fn the_guest_s_half_close_leaves_the_client_s_direction_open() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 16);
    guest.send(peer.shutdown(SHUTDOWN_SEND), &[]);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    client.write_all(b"still here").unwrap();
    assert_eq!(guest.expect(OP_RW).1, b"still here");
}

#[test]
fn the_client_s_writes_fail_once_the_guest_receives_nothing_more() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 16);
    guest.send(peer.shutdown(SHUTDOWN_RCV), &[]);
    assert_eq!(client.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    guest.send(peer.data(3), b"yes");
    let mut answer = [0; 3];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"yes");
}

#[test]
fn nothing_is_lost_when_the_guest_closes_right_after_its_data() {
    for end in [OP_SHUTDOWN, OP_RST] {
        let mut guest = Guest::new();
        let (mut client, peer) = guest.connected(1 << 16);
        // More than the socket's buffer takes, as much as the credit allows.
        let message = pattern(RECEIVE_BUFFER_BYTES as usize);
        for part in message.chunks(MAX_PAYLOAD_BYTES) {
            guest.send(peer.data(part.len()), part);
        }
        let last = if end == OP_RST {
            peer.packet(OP_RST)
        } else {
            peer.shutdown(SHUTDOWN_BOTH)
        };
        client.write_all(b"unread by the guest").unwrap();
        guest.queue(last, &[]);
        guest.driver.kick(TX);
        if end == OP_SHUTDOWN {
            let answers: Vec<u16> = std::iter::from_fn(|| guest.next()).map(|(h, _)| h.op).collect();
            assert!(answers.contains(&OP_RST), "the close is confirmed at once: {answers:?}");
        }
        let mut got = Vec::new();
        let mut chunk = vec![0; 10_000];
        loop {
            guest.driver.serve_events();
            match client.read(&mut chunk).unwrap() {
                0 => break,
                n => got.extend_from_slice(&chunk[..n]),
            }
        }
        assert!(got == message, "{} of {} bytes after operation {end}", got.len(), message.len());
        guest.driver.serve_events();
        assert_eq!(guest.streams(), 0);
    }
}

#[test]
fn data_of_a_client_that_closes_is_delivered_first() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = guest.connected(10);
    client.write_all(b"fifteen bytes..").unwrap();
    drop(client);
    // RCV is sent at once, SEND not yet: the guest has room for ten bytes only.
    let (mut seen, mut flags) = (Vec::new(), 0);
    while let Some((header, data)) = guest.next() {
        seen.extend(data);
        flags |= header.flags;
        assert!([OP_RW, OP_SHUTDOWN, OP_CREDIT_REQUEST].contains(&header.op));
    }
    assert_eq!((&seen[..], flags), (&b"fifteen by"[..], SHUTDOWN_RCV));
    peer.fwd_cnt = 10;
    guest.send(peer.packet(OP_CREDIT_UPDATE), &[]);
    assert_eq!(guest.expect(OP_RW).1, b"tes..");
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags, SHUTDOWN_BOTH);
    // Data for a client that is gone is discarded.
    guest.send(peer.data(3), b"abc");
    guest.send(peer.packet(OP_RST), &[]);
    guest.expect_silence();
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_connection_from_the_guest_is_refused() {
    let mut guest = Guest::new();
    for host_port in [0, 8, 1024, 1 << 30, u32::MAX] {
        let peer = Peer {
            host_port,
            guest_port: 5555,
            buf_alloc: 1 << 16,
            fwd_cnt: 0,
        };
        guest.send(peer.packet(OP_REQUEST), &[]);
        let (answer, _) = guest.expect(OP_RST);
        assert_eq!((answer.src_port, answer.dst_port), (host_port, 5555));
        guest.send(peer.data(4), b"ping");
        guest.expect(OP_RST);
        assert_eq!(guest.streams(), 0);
    }
    // The ports of a stream that exists: it ends.
    let (_client, peer) = guest.connected(1 << 16);
    guest.send(peer.packet(OP_REQUEST), &[]);
    guest.expect(OP_RST);
    assert_eq!(guest.streams(), 0);
}

#[test]
fn an_offered_port_gives_the_guest_each_of_its_streams_once() {
    let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
    let (mut services, streams): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    let mut guest = Guest::offered(Some(Offer { port: 1026, streams }));
    guest.start();
    let mut peer = Peer {
        host_port: 1026,
        guest_port: 5555,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    };
    while let Some(mut service) = services.pop() {
        peer.guest_port += 1;
        guest.send(peer.packet(OP_REQUEST), &[]);
        let (answer, _) = guest.expect(OP_RESPONSE);
        assert_eq!((answer.src_port, answer.dst_port), (1026, peer.guest_port));
        guest.send(peer.data(4), b"ping");
        let mut word = [0; 4];
        service.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ping");
        service.write_all(b"pong").unwrap();
        assert_eq!(guest.expect(OP_RW).1, b"pong");
        guest.send(peer.packet(OP_RST), &[]);
        assert_closed(service);
    }
    peer.guest_port += 1;
    guest.send(peer.packet(OP_REQUEST), &[]);
    guest.expect(OP_RST);
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_second_request_for_an_offered_stream_ends_it() {
    let (service, stream) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut guest = Guest::offered(Some(Offer {
        port: 1026,
        streams: vec![stream],
    }));
    guest.start();
    let peer = Peer {
        host_port: 1026,
        guest_port: 5555,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    };
    guest.send(peer.packet(OP_REQUEST), &[]);
    guest.expect(OP_RESPONSE);
    guest.send(peer.packet(OP_REQUEST), &[]);
    guest.expect(OP_RST);
    assert_closed(service);
}

#[test]
fn busy_streams_take_turns() {
    let mut guest = Guest::new();
    let streams: Vec<(UnixStream, Peer)> = (0..4).map(|_| guest.connected(1 << 20)).collect();
    for (client, _) in &streams {
        (&mut &*client).write_all(&pattern(60_000)).unwrap();
    }
    let mut order = Vec::new();
    while order.len() < 24 {
        let (header, _) = guest.expect(OP_RW);
        order.push(header.src_port);
    }
    for (_, peer) in &streams {
        let turns = order.iter().filter(|p| **p == peer.host_port).count();
        assert!((4..=8).contains(&turns), "{order:?}");
    }
}
