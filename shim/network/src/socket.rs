//! Requests to the kernel's routing tables (rtnetlink(7)), one at a time, in the namespace of the calling thread.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Most messages of one answer: a namespace of a pod has a few.
const MESSAGES_MAX: usize = 16 * 1024;

/// A connection to the kernel.
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Every object of the kind that the request names.
    pub fn dump(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(request, NLM_F_DUMP)
    }

    /// Makes what the request describes; an error if it exists.
    pub fn create(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Changes or removes what the request describes.
    pub fn change(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(request, NLM_F_ACK).map(drop)
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            if self.take(&received, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; whether the answer is complete.
    fn take(&self, received: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut rest = received;
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(malformed)?;
            let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len().max(16));
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) if answers.len() < MESSAGES_MAX => answers.push(inner),
                NetlinkPayload::InnerMessage(_) => return Err(io::ErrorKind::QuotaExceeded.into()),
                _ => {}
            }
        }
        Ok(false)
    }
}
