//! Requests to the kernel about interfaces, addresses, routes and neighbours (rtnetlink(7)).

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixed {
    pub address: IpAddr,
    pub length: u8,
}

/// A route through the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Prefixed,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub on_link: bool,
    /// 0: the kernel's default.
    pub metric: u32,
}

/// The kernel, about one interface.
pub struct Link {
    socket: Socket,
    index: u32,
}

impl Link {
    /// The interface of this index.
    ///
    /// # Errors
    /// There is no socket.
    pub fn new(index: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        Ok(Self { socket, index })
    }

    /// Sends a request and takes the kernel's answer, which is there when the request is sent.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn set(&self, attributes: Vec<LinkAttribute>, up: Option<bool>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        if let Some(up) = up {
            link.header.change_mask = LinkFlags::Up;
            link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        link.attributes = attributes;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Brings it up or down.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        self.set(Vec::new(), Some(up))
    }

    /// Renames it; it must be down.
    pub fn rename(&self, name: &str) -> io::Result<()> {
        self.set(vec![LinkAttribute::IfName(name.to_owned())], None)
    }

    /// Sets its hardware address.
    pub fn set_hardware_address(&self, address: [u8; 6]) -> io::Result<()> {
        self.set(vec![LinkAttribute::Address(address.to_vec())], None)
    }

    /// Sets the length of the longest packet in bytes.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        self.set(vec![LinkAttribute::Mtu(mtu)], None)
    }

    fn address(&self, Prefixed { address, length }: Prefixed) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = length;
        message.header.index = self.index;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    /// Adds an address, which is in use at once: no other host is asked whether it has the same one. The kernel makes no route of its
    /// prefix: those of the host are all there are (CNI's `ptp` leads the prefix itself through its gateway).
    pub fn add_address(&self, address: Prefixed) -> io::Result<()> {
        let mut message = self.address(address);
        message.header.flags = AddressHeaderFlags::Nodad;
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes an address.
    pub fn remove_address(&self, address: Prefixed) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::DelAddress(self.address(address)), 0)
    }

    /// Adds a route, in the place of one of the same destination and metric.
    pub fn add_route(&self, route: &Route) -> io::Result<()> {
        let mut message = RouteMessage::default();
        let direct = route.gateway.is_none() && route.destination.address.is_ipv4();
        message.header = RouteHeader {
            address_family: family(route.destination.address),
            destination_prefix_length: route.destination.length,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: if direct { RouteScope::Link } else { RouteScope::Universe },
            kind: RouteType::Unicast,
            flags: if route.on_link { RouteFlags::Onlink } else { RouteFlags::empty() },
            ..RouteHeader::default()
        };
        message.attributes.push(RouteAttribute::Oif(self.index));
        if route.destination.length != 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::from(route.destination.address)));
        }
        let addresses = [
            route.gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::from(gateway))),
            route.source.map(|source| RouteAttribute::PrefSource(RouteAddress::from(source))),
            (route.metric != 0).then_some(RouteAttribute::Priority(route.metric)),
        ];
        message.attributes.extend(addresses.into_iter().flatten());
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds an entry of the neighbour table that stays.
    pub fn add_neighbour(&self, address: IpAddr, hardware_address: [u8; 6]) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index;
        message.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message.attributes = vec![
            NeighbourAttribute::Destination(destination),
            NeighbourAttribute::LinkLayerAddress(hardware_address.to_vec()),
        ];
        self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}
