//! Registries by name: whom the puller asks for their addresses.

use crate::{bench::Bench, refusals::serve, registry::OPEN};
use registry_testing::image::Image;
use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

/// An address of the loopback on which only this test has a name server.
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 77);
/// `registry.test` as in a question (RFC 1035, 3.1).
const NAME: &[u8] = b"\x08registry\x04test\0";
const HEADER_BYTES: usize = 12;

pub fn names_are_asked_of_the_servers_of_the_job() {
    let Ok(socket) = UdpSocket::bind((SERVER, 53)) else {
        return println!("skipped: names_are_asked_of_the_servers_of_the_job: port 53 cannot be served");
    };
    thread::spawn(move || serve_names(&socket));
    let image = Image::new(1, 1000);
    let server = serve(image.blobs.clone(), |_| None);
    let named = |host: &str| format!("{host}:{}/a/b@{}", server.port, image.index);
    let mut bench = Bench::new();
    bench.nameservers = vec![IpAddr::V4(SERVER)];
    assert_eq!(bench.pull(&named("registry.test"), Some(OPEN)).unwrap().len(), 1);
    let text = bench.refused(&named("another.test"), Some(OPEN));
    assert!(text.contains("cannot reach the registry of another.test"), "{text}");
    bench.wait = Duration::from_secs(1);
    let text = bench.refused(&named("another.test"), Some(OPEN));
    assert!(
        text.contains("not there for 1 s, asking 127.0.53.77 for its address: cannot"),
        "{text}"
    );
    let text = Bench::new().refused(&named("registry.test"), Some(OPEN));
    assert!(text.contains("cannot reach the registry of registry.test"), "{text}");
}

/// Answers questions for [`NAME`]'s address of IPv4 with the loopback's; nothing else exists.
fn serve_names(socket: &UdpSocket) {
    let mut packet = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut packet) {
        let question = &packet[HEADER_BYTES..length.max(HEADER_BYTES)];
        let known = question.to_ascii_lowercase().starts_with(NAME);
        let wants_ipv4 = question.get(NAME.len()..NAME.len() + 2) == Some(&[0, 1]);
        let answers = u8::from(known && wants_ipv4);
        // A response, with recursion; the code is 3 for a name that does not exist.
        let flags = [0x81, if known { 0x80 } else { 0x83 }];
        let end = question.iter().position(|byte| *byte == 0).map_or(0, |end| end + 5);
        let mut answer = [
            &packet[..2],
            &flags,
            &[0, 1, 0, answers, 0, 0, 0, 0],
            &question[..end.min(question.len())],
        ]
        .concat();
        if answers == 1 {
            // The name of the question, type A, class IN, a minute, four bytes.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        let _ = socket.send_to(&answer, client);
    }
}
