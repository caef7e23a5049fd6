//! The VM's network device, configured as its pod's interface on the host was.
//!
//! The network is the host's: it can read, drop and forge every packet. The configuration is the judged one, though. Router advertisements,
//! redirects and source routes, by which packets could change it, are ignored, and no packet decides whether an address is in use.

use std::{fs, io, net::IpAddr, path::Path};

use nix::ifaddrs::getifaddrs;
use policy::{Permit, action::GuestNetwork};

use super::{
    NetworkError,
    netlink::{Link, Prefixed, Route},
};

/// Where interfaces are directories.
const INTERFACES: &str = "/sys/class/net";
/// Not a device.
const LOOPBACK: &str = "lo";
/// Parameters of an interface below `/proc/sys/net`, where it has a directory of its name (ip-sysctl.rst); those of `all` count too.
const IPV4: [(&str, &str); 3] = [("accept_redirects", "0"), ("accept_source_route", "0"), ("secure_redirects", "0")];
const IPV6: [(&str, &str); 6] = [
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("accept_redirects", "0"),
    ("accept_source_route", "-1"),
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
];

/// Configures the one network device as the permit says; all or nothing. One that is configured already begins anew.
///
/// # Errors
/// There is no device, or the kernel refuses a part; then the device has no address and is down.
pub fn configure(permit: Permit<'_, GuestNetwork>) -> Result<(), NetworkError> {
    let plan = Plan::of(permit.action()).ok_or(NetworkError::Step {
        step: "reading an address",
        cause: io::ErrorKind::InvalidInput.into(),
    })?;
    let device = the_device(Path::new(INTERFACES))?;
    let index = fs::read_to_string(Path::new(INTERFACES).join(&device).join("ifindex"));
    let index = index.and_then(|text| text.trim().parse().map_err(io::Error::other));
    let link = index.and_then(Link::new).map_err(step("opening the device"))?;
    clear(&link, &device).map_err(step("clearing the device"))?;
    match plan.apply(&link, &device) {
        Ok(()) => {
            permit.commit();
            Ok(())
        }
        Err(error) => {
            // It may have its new name or the old one.
            let cleared = clear(&link, &device).and_then(|()| clear(&link, plan.name));
            Err(if cleared.is_ok() { error } else { NetworkError::NotUndone })
        }
    }
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |cause| NetworkError::Step { step, cause }
}

/// The name of the only network device.
fn the_device(interfaces: &Path) -> Result<String, NetworkError> {
    let entries = fs::read_dir(interfaces).map_err(step("listing the devices"))?;
    // Others than devices are what a container with the right to do so has made.
    let devices = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != LOOPBACK)
        .collect::<Vec<_>>();
    match <[String; 1]>::try_from(devices) {
        Ok([device]) => Ok(device),
        Err(none) if none.is_empty() => Err(NetworkError::NoDevice),
        Err(_) => Err(NetworkError::SeveralDevices),
    }
}

/// Takes the device down, which removes its routes and IPv6 addresses, and then its IPv4 addresses.
fn clear(link: &Link, name: &str) -> io::Result<()> {
    link.set_up(false)?;
    let of_device = getifaddrs()?.filter(|entry| entry.interface_name == name);
    for entry in of_device {
        let ipv4 = |storage: Option<nix::sys::socket::SockaddrStorage>| Some(storage?.as_sockaddr_in()?.ip());
        if let (Some(address), Some(mask)) = (ipv4(entry.address), ipv4(entry.netmask)) {
            link.remove_address(Prefixed {
                address: address.into(),
                length: u32::from(mask).leading_ones() as u8,
            })?;
        }
    }
    Ok(())
}

/// What is configured, as numbers.
struct Plan<'a> {
    name: &'a str,
    hardware_address: Option<[u8; 6]>,
    mtu: Option<u32>,
    addresses: Vec<Prefixed>,
    routes: Vec<Route>,
    neighbours: Vec<(IpAddr, [u8; 6])>,
}

impl<'a> Plan<'a> {
    /// `None` if a text is none of those that decoding makes.
    fn of(action: &'a GuestNetwork) -> Option<Self> {
        let routes = action.routes.iter().map(|route| {
            Some(Route {
                destination: prefixed(&route.destination)?,
                gateway: optional(&route.gateway)?,
                source: optional(&route.source)?,
                on_link: route.on_link,
                metric: route.metric,
            })
        });
        let neighbours = action.neighbours.iter();
        let neighbours = neighbours.map(|entry| Some((entry.address.parse().ok()?, hardware(&entry.hardware_address)?)));
        Some(Self {
            name: &action.interface,
            hardware_address: match action.hardware_address.as_str() {
                "" => None,
                text => Some(hardware(text)?),
            },
            mtu: Some(action.mtu).filter(|&mtu| mtu != 0),
            addresses: action.addresses.iter().map(|text| prefixed(text)).collect::<Option<_>>()?,
            routes: routes.collect::<Option<_>>()?,
            neighbours: neighbours.collect::<Option<_>>()?,
        })
    }

    /// Configures a device that is down and has no address.
    fn apply(&self, link: &Link, device: &str) -> Result<(), NetworkError> {
        if device != self.name {
            link.rename(self.name).map_err(step("naming the device"))?;
        }
        for name in ["all", self.name] {
            protect(name).map_err(step("protecting the configuration"))?;
        }
        if let Some(address) = self.hardware_address {
            link.set_hardware_address(address).map_err(step("setting the hardware address"))?;
        }
        if let Some(mtu) = self.mtu {
            link.set_mtu(mtu).map_err(step("setting the MTU"))?;
        }
        // Up before the addresses, since routes need them on a device that is up, and before them nothing answers.
        link.set_up(true).map_err(step("bringing the device up"))?;
        for &address in &self.addresses {
            link.add_address(address).map_err(step("adding an address"))?;
        }
        for route in &self.routes {
            link.add_route(route).map_err(step("adding a route"))?;
        }
        for &(address, hardware_address) in &self.neighbours {
            link.add_neighbour(address, hardware_address).map_err(step("adding a neighbour"))?;
        }
        Ok(())
    }
}

/// Has packets change nothing of the interface's configuration.
fn protect(interface: &str) -> io::Result<()> {
    let of = |family: &'static str| move |(name, value)| (format!("/proc/sys/net/{family}/conf/{interface}/{name}"), value);
    for (file, value) in IPV4.into_iter().map(of("ipv4")).chain(IPV6.into_iter().map(of("ipv6"))) {
        match fs::write(&file, value) {
            // A kernel without IPv6, or a parameter that is one of each interface alone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn prefixed(text: &str) -> Option<Prefixed> {
    let (address, length) = text.split_once('/')?;
    Some(Prefixed {
        address: address.parse().ok()?,
        length: length.parse().ok()?,
    })
}

/// An address, or none for an empty text; `None` if it is neither.
fn optional(text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

fn hardware(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use policy::action;
    use std::thread;

    fn asked() -> GuestNetwork {
        let route = |destination: &str, gateway: &str, source: &str, metric| action::Route {
            destination: destination.to_owned(),
            gateway: gateway.to_owned(),
            source: source.to_owned(),
            on_link: false,
            metric,
        };
        GuestNetwork {
            interface: "eth0".to_owned(),
            addresses: ["10.9.0.2/24", "fd00::2/64"].map(str::to_owned).to_vec(),
            routes: vec![
                route("10.9.0.0/24", "", "10.9.0.2", 0),
                route("fd00::1/128", "", "", 0),
                route("0.0.0.0/0", "10.9.0.1", "", 0),
                route("::/0", "fd00::1", "", 7),
            ],
            nameservers: Vec::new(),
            hardware_address: "02:00:00:00:00:09".to_owned(),
            mtu: 1400,
            neighbours: vec![action::Neighbour {
                address: "10.9.0.1".to_owned(),
                hardware_address: "02:00:00:00:00:01".to_owned(),
            }],
        }
    }

    /// An interface in a network namespace of the thread's own: a TAP, which has an address and links as a device has. `None` if
    /// none can be made here.
    fn tap() -> Option<(fs::File, Link)> {
        unshare(CloneFlags::CLONE_NEWNET).ok()?;
        let file = fs::File::options().read(true).write(true).open("/dev/net/tun").ok()?;
        crate::sys::make_tap(&file, "tap0").ok()?;
        let index = nix::net::if_::if_nametoindex("tap0").ok()?;
        Some((file, Link::new(index).ok()?))
    }

    #[test]
    fn the_device_gets_what_is_asked_for_or_nothing() {
        let test = || {
            let Some((_file, link)) = tap() else {
                return println!("skipped: the_device_gets_what_is_asked_for_or_nothing: this test needs root and /dev/net/tun");
            };
            let action = asked();
            let plan = Plan::of(&action).unwrap();
            plan.apply(&link, "tap0").unwrap();
            let of_device = || getifaddrs().unwrap().filter(|entry| entry.interface_name == "eth0");
            let has = |text: &str| of_device().any(|entry| entry.address.is_some_and(|address| address.to_string().contains(text)));
            assert!(has("10.9.0.2") && has("fd00::2") && has("02:00:00:00:00:09"));
            let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
            assert!(routes.lines().any(|line| line.starts_with("eth0\t00000000\t0100090A")), "{routes}");
            let prefixes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
            assert!(
                !prefixes.contains("fd000000000000000000000000000000 40"),
                "the kernel made a route: {prefixes}"
            );
            let neighbours = fs::read_to_string("/proc/thread-self/net/arp").unwrap();
            assert!(neighbours.contains("02:00:00:00:00:01"), "{neighbours}");
            // Its own namespace's, which /proc/sys shows to the thread.
            assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap().trim(), "0");
            // A second time, and then with a gateway that nothing reaches.
            clear(&link, "eth0").unwrap();
            assert!(!has("10.9.0.2") && !has("fd00::2"));
            plan.apply(&link, "eth0").unwrap();
            let mut unreachable = asked();
            unreachable.routes[2].gateway = "192.0.2.1".to_owned();
            clear(&link, "eth0").unwrap();
            let refused = Plan::of(&unreachable).unwrap().apply(&link, "eth0");
            assert!(
                matches!(
                    refused,
                    Err(NetworkError::Step {
                        step: "adding a route",
                        ..
                    })
                ),
                "{refused:?}"
            );
            clear(&link, "eth0").unwrap();
            assert!(!has("10.9.0.2"));
        };
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn there_is_exactly_one_device() {
        let directory = tempfile::tempdir().unwrap();
        let found = || the_device(directory.path());
        let make = |path: &str| fs::create_dir_all(directory.path().join(path)).unwrap();
        make("lo");
        make("bridge0");
        assert!(matches!(found(), Err(NetworkError::NoDevice)));
        make("eth0/device");
        assert_eq!(found().unwrap(), "eth0");
        make("eth1/device");
        assert!(matches!(found(), Err(NetworkError::SeveralDevices)));
    }
}
