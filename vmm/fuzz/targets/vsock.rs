//! Packets of the guest, clients of the host, and rings that change in use by the vsock device.
#![no_main]

use casemate_vmm::devices::virtio::vsock::{Vsock, muxer::Offer};
use casemate_vmm_fuzz::{Machine, Part, parts, steps};
use libfuzzer_sys::fuzz_target;
use std::{
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{Arc, Mutex},
};

const RX: usize = 0;
const TX: usize = 1;
/// The first port that a client of the host gets.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// Most clients at a time.
const CLIENTS_MAX: usize = 4;
/// The port of the host to which the guest may connect, and how often.
const OFFERED: u32 = 7;
const OFFERS: usize = 2;

fuzz_target!(init: casemate_vmm_fuzz::ignore_broken_pipes(), |bytes: &[u8]| {
    let address = SocketAddr::from_abstract_name(format!("casemate-fuzz-{}", std::process::id())).expect("an address");
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let (streams, services) = (0..OFFERS)
        .map(|_| {
            let (ours, service) = UnixStream::pair().expect("a stream");
            ours.set_nonblocking(true).and(service.set_nonblocking(true)).expect("a socket");
            (ours, service)
        })
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let device = Vsock::new(listener, Some(Offer { port: OFFERED, streams })).expect("a device");
    let mut machine = Machine::new(Arc::new(Mutex::new(device)));
    machine.set_up(0);
    // The services of the offered port are at the far ends, like clients.
    let mut clients: Vec<UnixStream> = services;
    steps(bytes, |input| {
        match input.int_in_range(0..=9u8)? {
            0 => machine.anything(input)?,
            1 => machine.submit(RX, &[Part::In(input.int_in_range(0..=0x1000)?)]),
            2 if clients.len() < CLIENTS_MAX + OFFERS => {
                let mut client = UnixStream::connect_addr(&address).expect("the listener listens");
                client.set_nonblocking(true).expect("a socket");
                let _ = client.write(if input.ratio(7, 8)? { b"CONNECT 1024\n" } else { input.bytes(input.len().min(40))? });
                clients.push(client);
            }
            3 if !clients.is_empty() => {
                let client = input.choose_index(clients.len())?;
                let _ = clients[client].write(&vec![7; input.int_in_range(0..=70_000)?]);
            }
            4 if !clients.is_empty() => {
                let client = input.choose_index(clients.len())?;
                let _ = clients[client].read(&mut vec![0; input.int_in_range(0..=70_000)?]);
            }
            5 if !clients.is_empty() => drop(clients.swap_remove(input.choose_index(clients.len())?)),
            6 => machine.submit(TX, &parts(input, 3)?),
            _ => {
                let host_port = if input.ratio(1, 8)? { OFFERED } else { FIRST_HOST_PORT + input.int_in_range(0..=4u32)? };
                let payload = input.int_in_range(0..=0x1000usize)?;
                let claimed = if input.ratio(1, 8)? { input.arbitrary()? } else { payload as u32 };
                let operation = input.int_in_range(0..=8u32)?;
                let credit: [u32; 2] = if input.ratio(1, 4)? { input.arbitrary()? } else { [1 << 18, 0] };
                let mut packet = [&3u64.to_le_bytes()[..], &2u64.to_le_bytes()].concat();
                for word in [1024, host_port, claimed, 1 | operation << 16, input.int_in_range(0..=3)?, credit[0], credit[1]] {
                    packet.extend(word.to_le_bytes());
                }
                packet.resize(packet.len() + payload, 9);
                machine.submit(TX, &[Part::Out(packet)]);
            }
        }
        machine.serve_events();
        Ok(())
    });
});
