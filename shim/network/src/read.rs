//! What CNI gave the pod: its interface with addresses, routes and permanent neighbours.

use crate::{ENTRIES_MAX, Interface, NetworkError, Route, socket::RouteSocket, tap};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The one interface of the calling thread's namespace.
pub fn interface() -> Result<Option<Interface>, NetworkError> {
    let step = |step| move |e| NetworkError::Step(step, e);
    let mut socket = RouteSocket::open().map_err(step("ask the kernel for the pod's interfaces"))?;
    let links = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let links = links.map_err(step("list the pod's interfaces"))?;
    let mut found: Vec<Interface> = links.into_iter().filter_map(link).collect();
    let Some(mut interface) = found.pop() else { return Ok(None) };
    if !found.is_empty() {
        found.push(interface);
        let mut names: Vec<String> = found.into_iter().map(|interface| interface.name).collect();
        names.sort_unstable();
        return Err(NetworkError::Several(names));
    }
    let addresses = socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    let addresses = addresses.map_err(step("list the pod's addresses"))?;
    interface.addresses = addresses
        .into_iter()
        .filter_map(|message| address(message, interface.index))
        .collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = socket
            .dump(RouteNetlinkMessage::GetRoute(request))
            .map_err(step("list the pod's routes"))?;
        for message in routes {
            interface.routes.extend(route(message, &interface)?);
        }
    }
    // A next hop can be added once there is a route to it.
    interface.routes.sort_by_key(|route| route.gateway.is_some());
    let neighbours = socket.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
    let neighbours = neighbours.map_err(step("list the pod's neighbours"))?;
    interface.neighbours = neighbours
        .into_iter()
        .filter_map(|message| neighbour(message, interface.index))
        .collect();
    for (entries, count) in [
        ("addresses", interface.addresses.len()),
        ("routes", interface.routes.len()),
        ("neighbours", interface.neighbours.len()),
    ] {
        if count > ENTRIES_MAX {
            let interface = interface.name;
            return Err(NetworkError::TooMany { interface, entries });
        }
    }
    Ok(Some(interface))
}

/// An interface that is up and can carry Ethernet frames. A namespace also has devices that drivers make by themselves (`tunl0`,
/// `sit0`), which are down.
fn link(message: RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let flags = link.header.flags;
    if !flags.contains(LinkFlags::Up) || flags.contains(LinkFlags::Loopback) || link.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mac: [0; 6],
        mtu: 0,
        addresses: Vec::new(),
        routes: Vec::new(),
        neighbours: Vec::new(),
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Address(mac) => interface.mac = mac.try_into().ok()?,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            _ => {}
        }
    }
    (interface.name != tap::NAME).then_some(interface)
}

fn address(message: RouteNetlinkMessage, index: u32) -> Option<(IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // With a peer, `Address` is the peer's.
    let address = find(true).or_else(|| find(false))?;
    (message.header.index == index && !is_of_link(&address)).then_some((address, message.header.prefix_len))
}

/// The guest makes those of the link itself.
fn is_of_link(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

fn route(message: RouteNetlinkMessage, interface: &Interface) -> Result<Option<Route>, NetworkError> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return Ok(None);
    };
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let mut table = u32::from(header.table);
    let mut by = None;
    let mut unknown = None;
    let mut route = Route {
        destination: (any, header.destination_prefix_length),
        gateway: None,
        source: None,
        on_link: header.flags.contains(RouteFlags::Onlink),
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination.0 = ip(address).unwrap_or(any),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => by = Some(*index),
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::MultiPath(_) => unknown = Some("with several next hops"),
            RouteAttribute::Via(_) => unknown = Some("whose next hop is of another family"),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || header.kind != RouteType::Unicast || is_of_link(&route.destination.0) {
        return Ok(None);
    }
    if let Some(why) = unknown {
        return Err(NetworkError::Route {
            interface: interface.name.clone(),
            destination: format!("{}/{}", route.destination.0, route.destination.1),
            why,
        });
    }
    Ok((by == Some(interface.index)).then_some(route))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn neighbour(message: RouteNetlinkMessage, index: u32) -> Option<(IpAddr, [u8; 6])> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
            _ => {}
        }
    }
    Some((address?, mac?))
}
