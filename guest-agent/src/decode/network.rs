//! Network requests of the host: a connection to a port, or the configuration of an interface.

use std::net::IpAddr;

use agent_protocol::{
    ConfigureNetworkRequest, ForwardPortRequest, StreamToken,
    limits::{INTERFACE_BYTES, NETWORK_ENTRIES, NETWORK_TEXT_BYTES},
};
use container_document::{at_most, refuse, texts};
use policy::action::{GuestNetwork, Neighbour, PortForward, Route};

use super::{DecodeError, container_id};

/// A connection to make.
#[derive(Debug)]
pub struct ForwardOrder {
    pub action: PortForward,
    pub token: StreamToken,
}

impl TryFrom<ForwardPortRequest> for ForwardOrder {
    type Error = DecodeError;

    fn try_from(request: ForwardPortRequest) -> Result<Self, DecodeError> {
        let field = "stream_token";
        let token = StreamToken::from_field(&request.stream_token).map_err(|cause| DecodeError::Token { field, cause })?;
        let port = u16::try_from(request.port).ok().filter(|&port| port != 0);
        Ok(Self {
            action: PortForward {
                container_id: container_id(&request.container_id)?,
                port: port.ok_or(DecodeError::Range {
                    field: "port",
                    value: request.port.into(),
                    allowed: "1 to 65535",
                })?,
            },
            token: token.ok_or(DecodeError::Length {
                field,
                bytes: 0,
                needed: StreamToken::BYTES,
            })?,
        })
    }
}

/// Directories of parameters beside those of interfaces, and the interface that is no device.
const NOT_DEVICES: [&str; 3] = ["all", "default", "lo"];
/// Packets that every device can carry.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// The network device to configure. Every address is normalised to Rust's spelling, so that a policy sees one spelling of each.
pub fn network(request: ConfigureNetworkRequest) -> Result<GuestNetwork, DecodeError> {
    let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ConfigureNetworkRequest {
        interface,
        addresses,
        routes,
        nameservers,
        hardware_address,
        mtu,
        neighbours,
        ..
    } = request;
    let is_name = !interface.is_empty() && interface.len() <= INTERFACE_BYTES && interface.bytes().all(of_name);
    if !is_name || interface.starts_with('.') || NOT_DEVICES.contains(&interface.as_str()) {
        refuse("interface", "it is not the name of an interface")?;
    }
    at_most("addresses", addresses.len(), NETWORK_ENTRIES)?;
    at_most("routes", routes.len(), NETWORK_ENTRIES)?;
    at_most("nameservers", nameservers.len(), NETWORK_ENTRIES)?;
    at_most("neighbours", neighbours.len(), NETWORK_ENTRIES)?;
    texts("addresses", &addresses, NETWORK_TEXT_BYTES)?;
    texts("nameservers", &nameservers, NETWORK_TEXT_BYTES)?;
    texts("neighbours", neighbours.iter().map(|entry| &entry.address), NETWORK_TEXT_BYTES)?;
    if mtu != 0 && !MTU.contains(&mtu) {
        let (field, allowed) = ("mtu", "68 to 65535");
        return Err(DecodeError::Range {
            field,
            value: mtu.into(),
            allowed,
        });
    }
    let neighbours = neighbours.into_iter().map(|entry| {
        Ok(Neighbour {
            address: address("neighbours.address", &entry.address)?,
            hardware_address: hardware("neighbours.hardware_address", &entry.hardware_address)?,
        })
    });
    Ok(GuestNetwork {
        interface,
        addresses: addresses.iter().map(|text| prefixed("addresses", text)).collect::<Result<_, _>>()?,
        routes: routes.into_iter().map(route).collect::<Result<_, _>>()?,
        nameservers: nameservers
            .iter()
            .map(|text| address("nameservers", text))
            .collect::<Result<_, _>>()?,
        hardware_address: match hardware_address.as_slice() {
            [] => String::new(),
            bytes => hardware("hardware_address", bytes)?,
        },
        mtu,
        neighbours: neighbours.collect::<Result<_, DecodeError>>()?,
    })
}

fn route(route: agent_protocol::Route) -> Result<Route, DecodeError> {
    texts("routes", [&route.destination, &route.gateway, &route.source], NETWORK_TEXT_BYTES)?;
    let destination = prefixed("routes.destination", &route.destination)?;
    let is_ipv4 = |text: &str| !text.contains(':');
    let of_destination = |field, text: &str| match text {
        "" => Ok(String::new()),
        text => {
            let address = address(field, text)?;
            if is_ipv4(&address) != is_ipv4(&destination) {
                refuse(field, "an address is of another family than its destination")?;
            }
            Ok::<_, DecodeError>(address)
        }
    };
    Ok(Route {
        gateway: of_destination("routes.gateway", &route.gateway)?,
        source: of_destination("routes.source", &route.source)?,
        on_link: route.on_link,
        metric: route.metric,
        destination,
    })
}

/// The address of one device, as text.
fn hardware(field: &'static str, bytes: &[u8]) -> Result<String, DecodeError> {
    let bytes: [u8; 6] = bytes.try_into().map_err(|_| DecodeError::Length {
        field,
        bytes: bytes.len(),
        needed: 6,
    })?;
    if bytes[0] & 1 == 1 || bytes == [0; 6] {
        refuse(field, "it is not the address of one device")?;
    }
    Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

fn malformed(field: &'static str) -> DecodeError {
    DecodeError::Spec {
        field,
        reason: "an entry is not an IP address",
    }
}

fn address(field: &'static str, text: &str) -> Result<String, DecodeError> {
    let address: IpAddr = text.parse().map_err(|_| malformed(field))?;
    Ok(address.to_string())
}

fn prefixed(field: &'static str, text: &str) -> Result<String, DecodeError> {
    let (start, length) = text.split_once('/').ok_or_else(|| malformed(field))?;
    let start: IpAddr = start.parse().map_err(|_| malformed(field))?;
    let most = if start.is_ipv4() { 32 } else { 128 };
    let length = length.parse::<u8>().ok().filter(|&length| length <= most);
    Ok(format!("{start}/{}", length.ok_or_else(|| malformed(field))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(port: u32, token: usize) -> Result<ForwardOrder, DecodeError> {
        ForwardOrder::try_from(ForwardPortRequest {
            container_id: "web".to_owned(),
            port,
            stream_token: vec![1; token],
            ..Default::default()
        })
    }

    #[test]
    fn a_port_is_in_range_and_the_stream_has_a_token() {
        assert_eq!(forward(80, StreamToken::BYTES).unwrap().action.port, 80);
        for (port, token) in [(0, 16), (65536, 16), (80, 0), (80, 15)] {
            assert!(forward(port, token).is_err(), "{port} {token}");
        }
    }

    fn configured(address: &str, gateway: &str) -> Result<GuestNetwork, DecodeError> {
        network(ConfigureNetworkRequest {
            interface: "eth0".to_owned(),
            addresses: vec![address.to_owned()],
            routes: vec![agent_protocol::Route {
                destination: "0:0::/0".to_owned(),
                gateway: gateway.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    #[test]
    fn each_address_has_one_spelling() {
        assert!(configured("10.0.0.2/8", "10.0.0.1").is_err(), "the gateway of another family");
        let network = configured("10.0.0.2/08", "fe80:0::1").unwrap();
        assert_eq!(network.addresses, ["10.0.0.2/8"]);
        assert_eq!(
            (network.routes[0].destination.as_str(), network.routes[0].gateway.as_str()),
            ("::/0", "fe80::1")
        );
        for (address, gateway) in [("10.0.0.2", ""), ("10.0.0.2/33", ""), ("x/8", ""), ("::1/128", "gateway")] {
            assert!(configured(address, gateway).is_err(), "{address} {gateway}");
        }
        let named = |interface: &str| network_of(interface).is_ok();
        assert!(named("eth0.1") && !named("") && !named("../eth0") && !named("all") && !named("lo") && !named("an-interface-name"));
    }

    #[test]
    fn numbers_of_the_device_are_in_range() {
        let device = |mac: &[u8], mtu| {
            network(ConfigureNetworkRequest {
                interface: "eth0".to_owned(),
                hardware_address: mac.to_vec(),
                mtu,
                ..Default::default()
            })
        };
        assert_eq!(device(&[2, 0, 0, 0, 0, 0xab], 1500).unwrap().hardware_address, "02:00:00:00:00:ab");
        assert_eq!(device(&[], 0).unwrap().hardware_address, "");
        for (mac, mtu) in [(&[2; 5][..], 0), (&[1, 0, 0, 0, 0, 1], 0), (&[0; 6], 0), (&[], 67), (&[], 65536)] {
            assert!(device(mac, mtu).is_err(), "{mac:?} {mtu}");
        }
    }

    fn network_of(interface: &str) -> Result<GuestNetwork, DecodeError> {
        network(ConfigureNetworkRequest {
            interface: interface.to_owned(),
            ..Default::default()
        })
    }
}
