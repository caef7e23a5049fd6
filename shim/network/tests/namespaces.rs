//! Pods' networks in namespaces of this test: skipped without root, `ip`, IPv6 or `/dev/net/tun`.

use pod_network::{Netns, NetworkError};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

/// A namespace by name; its deletion ends everything in it.
struct Named(String);

impl Named {
    /// `None` where this process cannot make one.
    fn make(test: &str, name: &str) -> Option<Self> {
        let own = Self(format!("casemate-test-{name}-{}", std::process::id()));
        let has = |path| Path::new(path).exists();
        if nix::unistd::geteuid().is_root() && has("/dev/net/tun") && has("/proc/net/if_inet6") && try_ip(&["netns", "add", &own.0]) {
            own.ip("link set lo up");
            return Some(own);
        }
        println!("skipped: {test}: it needs root, ip, IPv6 and /dev/net/tun");
        None
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    fn open(&self) -> Netns {
        Netns::open(&self.path()).unwrap()
    }

    /// Runs `ip` in it.
    fn ip(&self, arguments: &str) {
        let words: Vec<&str> = ["-n", &self.0].into_iter().chain(arguments.split(' ')).collect();
        assert!(try_ip(&words), "ip {arguments}");
    }

    /// What `tc` shows of its queues.
    fn queues(&self) -> String {
        let shown = Command::new("tc").args(["-n", &self.0, "qdisc", "show"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }

    /// A pair of interfaces: eth0 here with what CNI gives it, `peer` in the other namespace.
    fn join(&self, other: &Self) {
        self.ip(&format!("link add eth0 mtu 1400 type veth peer name peer netns {}", other.0));
        self.ip("link set eth0 up");
        other.ip("link set peer up mtu 1400");
        self.ip("addr add 10.88.0.2/24 dev eth0");
        self.ip("addr add fd00:88::2/64 dev eth0 nodad");
        other.ip("addr add 10.88.0.1/24 dev peer");
        other.ip("addr add fd00:88::1/64 dev peer nodad");
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        try_ip(&["netns", "del", &self.0]);
    }
}

fn try_ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).status().is_ok_and(|status| status.success())
}

#[test]
fn what_cni_made_is_read() {
    let Some(pod) = Named::make("what_cni_made_is_read", "read") else {
        return;
    };
    let Some(host) = Named::make("what_cni_made_is_read", "readpeer") else {
        return;
    };
    assert_eq!(pod.open().interface().unwrap(), None);
    pod.join(&host);
    pod.ip("route add default via 10.88.0.1 metric 7");
    pod.ip("route add 169.254.1.1 dev eth0 scope link");
    pod.ip("route add 10.99.0.0/16 via 169.254.1.1 dev eth0 onlink src 10.88.0.2");
    pod.ip("-6 route add default via fd00:88::1");
    pod.ip("neigh add 169.254.1.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    let found = pod.open().interface().unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.mtu), ("eth0", 1400));
    let addresses: Vec<String> = found
        .addresses
        .iter()
        .map(|(address, length)| format!("{address}/{length}"))
        .collect();
    assert_eq!(addresses, ["10.88.0.2/24", "fd00:88::2/64"]);
    assert_eq!(found.neighbours, [("169.254.1.1".parse().unwrap(), [2, 0, 0, 0, 0, 9])]);
    let routes: Vec<String> = found
        .routes
        .iter()
        .map(|route| {
            format!(
                "{}/{} {:?} {} {}",
                route.destination.0, route.destination.1, route.gateway, route.on_link, route.metric
            )
        })
        .collect();
    for expected in [
        "10.88.0.0/24 None false 0",
        "169.254.1.1/32 None false 0",
        "0.0.0.0/0 Some(10.88.0.1) false 7",
        "10.99.0.0/16 Some(169.254.1.1) true 0",
        "::/0 Some(fd00:88::1) false 1024",
    ] {
        assert!(routes.iter().any(|route| route == expected), "{expected} is not among {routes:#?}");
    }
    let first_gateway = found.routes.iter().position(|route| route.gateway.is_some()).unwrap();
    assert!(
        found.routes[first_gateway..].iter().all(|route| route.gateway.is_some()),
        "{routes:?}"
    );
    pod.ip("link add net1 type veth peer name net2");
    assert!(
        pod.open().interface().unwrap().is_some(),
        "an interface that is down does not count"
    );
    pod.ip("link set net1 up");
    let Err(NetworkError::Several(names)) = pod.open().interface() else {
        panic!("two are one too many")
    };
    assert_eq!(names, ["eth0", "net1"]);
}

#[test]
fn frames_go_to_the_tap_and_come_from_it() {
    let Some(pod) = Named::make("frames_go_to_the_tap_and_come_from_it", "tap") else {
        return;
    };
    let Some(host) = Named::make("frames_go_to_the_tap_and_come_from_it", "tappeer") else {
        return;
    };
    pod.join(&host);
    let netns = pod.open();
    let interface = netns.interface().unwrap().unwrap();
    let tap = netns.connect(&interface).unwrap();
    assert_eq!(netns.interface().unwrap().unwrap(), interface, "the TAP is not the pod's");
    let mut tap = tap.into_file();
    // The peer asks who has the pod's address: the guest is asked, and no other answers.
    let knows = || {
        let shown = Command::new("ip")
            .args(["-n", &host.0, "neigh", "show", "10.88.0.2"])
            .output()
            .unwrap();
        String::from_utf8(shown.stdout).unwrap().contains("lladdr")
    };
    let ask = || UdpSocket::bind("10.88.0.1:0").and_then(|socket| socket.send_to(b"x", "10.88.0.2:9"));
    host.open().inside(|| ask().map_err(|e| NetworkError::Step("ask", e))).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(!knows(), "the namespace itself answered");
    let frame = read_until(&mut tap, |frame| frame[12..14] == [8, 6] && frame[38..42] == [10, 88, 0, 2]);
    assert_eq!(frame[..6], [0xff; 6]);
    // The guest answers.
    let mut answer = vec![0; 12];
    answer.extend_from_slice(&frame[6..12]);
    answer.extend(interface.mac);
    answer.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend(interface.mac);
    answer.extend([10, 88, 0, 2]);
    answer.extend_from_slice(&frame[22..32]);
    tap.write_all(&answer).unwrap();
    assert!((0..100).any(|_| {
        thread::sleep(Duration::from_millis(10));
        knows()
    }));
    drop(tap);
    netns.disconnect().unwrap();
    assert!(!pod.queues().contains("ingress"), "{}", pod.queues());
    netns.disconnect().unwrap();
}

/// Frames without their virtio header, until one is wanted.
fn read_until(tap: &mut File, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = [0; 2048];
    for _ in 0..500 {
        match tap.read(&mut buffer) {
            Ok(length) if length > 12 + 42 - 1 && wanted(&buffer[12..length]) => return buffer[12..length].to_vec(),
            Ok(_) => {}
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("no such frame came");
}

#[test]
fn many_rounds_leave_nothing() {
    let Some(pod) = Named::make("many_rounds_leave_nothing", "rounds") else {
        return;
    };
    let Some(host) = Named::make("many_rounds_leave_nothing", "roundspeer") else {
        return;
    };
    pod.join(&host);
    let netns = pod.open();
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let interface = netns.interface().unwrap().unwrap();
    for round in 0..100 {
        let tap = netns.connect(&interface).unwrap();
        if round % 3 == 0 {
            // A VMM that was killed, under a shim that was killed.
            drop(tap);
            continue;
        }
        drop(tap);
        netns.disconnect().unwrap();
    }
    netns.disconnect().unwrap();
    assert!(!pod.queues().contains("ingress"), "{}", pod.queues());
    // Other tests open descriptors too.
    assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() < before + 50);
}

#[test]
fn every_port_of_loopback_is_served() {
    let Some(pod) = Named::make("every_port_of_loopback_is_served", "ports") else {
        return;
    };
    let netns = pod.open();
    let loopback = match netns.loopback() {
        Ok(loopback) => loopback,
        Err(error) => return println!("skipped: every_port_of_loopback_is_served: {error:?}"),
    };
    let (v4, v6) = loopback.listeners().unwrap();
    let v6 = v6.expect("there is IPv6");
    for (listener, address) in [(&v4, "127.0.0.1:8080"), (&v4, "127.1.2.3:1"), (&v6, "[::1]:65535")] {
        listener.set_nonblocking(false).unwrap();
        let client = netns
            .inside(|| TcpStream::connect(address).map_err(|e| NetworkError::Step("connect", e)))
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(server.local_addr().unwrap().to_string(), address);
        assert_eq!(client.peer_addr().unwrap().to_string(), address);
    }
    drop((loopback, v4, v6));
    let refused = netns.inside(|| Ok(TcpStream::connect("127.0.0.1:8080").is_err())).unwrap();
    assert!(refused, "loopback was not given back");
}

#[test]
fn what_is_no_pods_namespace_is_refused() {
    let dir = std::env::temp_dir();
    assert!(matches!(Netns::open(&dir.join("no-such-namespace")), Err(NetworkError::Open(..))));
    assert!(matches!(Netns::open(Path::new("/dev/null")), Err(NetworkError::NotANamespace(_))));
    assert!(matches!(
        Netns::open(Path::new("/proc/self/ns/uts")),
        Err(NetworkError::NotANamespace(_))
    ));
    assert!(matches!(Netns::open(Path::new("/proc/self/ns/net")), Err(NetworkError::Host(_))));
}
