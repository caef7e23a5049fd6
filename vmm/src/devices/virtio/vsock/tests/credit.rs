//! Flow control: neither end sends more than the other has room for, and no stream stalls.

use super::*;

#[test]
fn the_guest_s_credit_is_respected_and_requested() {
    let mut guest = Guest::new();
    let (mut client, mut peer) = guest.connected(5000);
    let message = pattern(12_000);
    client.write_all(&message).unwrap();
    let mut got = Vec::new();
    for round in 1..=3u32 {
        let (data, end) = guest.collect();
        assert!(data.len() <= 5000);
        got.extend(data);
        if round < 3 {
            assert_eq!(end.map(|h| h.op), Some(OP_CREDIT_REQUEST));
            guest.expect_silence();
            assert_eq!(got.len(), 5000 * round as usize);
        }
        peer.fwd_cnt = got.len() as u32;
        guest.send(peer.packet(OP_CREDIT_UPDATE), &[]);
    }
    assert!(got == message);
    // An impossible fwd_cnt stalls this stream only.
    peer.fwd_cnt += 1;
    guest.send(peer.packet(OP_CREDIT_UPDATE), &[]);
    client.write_all(b"x").unwrap();
    assert_eq!(guest.expect(OP_CREDIT_REQUEST).0.len, 0);
    guest.expect_silence();
}

#[test]
fn our_credit_is_returned_as_the_client_reads() {
    let mut guest = Guest::new();
    let (mut client, peer) = guest.connected(1 << 16);
    let part = pattern(MAX_PAYLOAD_BYTES);
    // The client reads nothing: the socket takes some, the receive buffer the rest of the credit.
    let mut sent = 0u32;
    let mut known = 0u32;
    loop {
        let room = RECEIVE_BUFFER_BYTES - (sent - known);
        if room == 0 {
            break;
        }
        let len = room.min(MAX_PAYLOAD_BYTES as u32);
        guest.send(peer.data(len as usize), &part[..len as usize]);
        sent += len;
        while let Some((header, _)) = guest.next() {
            assert_eq!(header.op, OP_CREDIT_UPDATE);
            known = header.fwd_cnt;
        }
    }
    assert!(sent > RECEIVE_BUFFER_BYTES, "the socket's own buffer counts as forwarded");
    guest.send(peer.packet(OP_CREDIT_REQUEST), &[]);
    assert_eq!(guest.expect(OP_CREDIT_UPDATE).0.buf_alloc, RECEIVE_BUFFER_BYTES);
    // The client reads all: the guest gets a credit update without asking.
    let mut all = vec![0; sent as usize];
    let mut filled = 0;
    while filled < all.len() {
        filled += client.read(&mut all[filled..]).unwrap();
        guest.driver.serve_events();
    }
    while let Some((header, _)) = guest.next() {
        known = header.fwd_cnt;
    }
    assert!(sent - known < RECEIVE_BUFFER_BYTES, "credit was returned");
    assert!(all.chunks(MAX_PAYLOAD_BYTES).all(|c| *c == part[..c.len()]));
    let room = (RECEIVE_BUFFER_BYTES - (sent - known)) as usize;
    assert!(room <= RECEIVE_BUFFER_BYTES as usize);
    drop(client);
    assert_eq!(guest.streams(), 1);
}

#[test]
fn a_guest_that_overruns_its_credit_is_reset() {
    let mut guest = Guest::new();
    let (_client, peer) = guest.connected(1 << 16);
    let part = pattern(MAX_PAYLOAD_BYTES);
    for _ in 0..64 {
        guest.send(peer.data(part.len()), &part);
    }
    let ops: Vec<u16> = std::iter::from_fn(|| guest.next()).map(|(h, _)| h.op).collect();
    assert!(ops.contains(&OP_RST), "{ops:?}");
}

#[test]
fn packets_wait_for_receive_buffers() {
    let mut guest = Guest::without_driver();
    let features = guest.driver.offered();
    guest.driver.start(features);
    let client = guest.asking_client();
    guest.driver.serve_events();
    guest.driver.serve_events();
    guest.post(1);
    guest.pull();
    let (request, _) = guest.inbox.pop_front().unwrap();
    let peer = Peer {
        host_port: request.src_port,
        guest_port: PORT,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    };
    guest.send(peer.packet(OP_RESPONSE), &[]);
    let message = pattern(10_000);
    (&client).write_all(&message).unwrap();
    let mut got = Vec::new();
    for _ in 0..3 {
        guest.post(1);
        guest.pull();
        let (header, data) = guest.inbox.pop_front().unwrap();
        assert_eq!((header.op, guest.inbox.len()), (OP_RW, 0));
        got.extend(data);
    }
    assert!(got == message);
}
