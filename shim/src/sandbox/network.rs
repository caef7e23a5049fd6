//! The pod's network: the interface that CNI made on the host becomes the guest's.

use super::agent_call;
use crate::{bundle, error::Error, vm::Vm};
use agent_protocol::{ConfigureNetworkRequest, Neighbour, Route};
use pod_network::{Interface, Loopback, Netns, NetworkError, Tap};
use std::{io, sync::Arc};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The network of one sandbox.
#[derive(Default)]
pub struct PodNetwork(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unconnected,
    /// Connected in a namespace.
    Connected(Arc<Netns>),
    /// There is nothing but loopback in a namespace that CNI had filled.
    Without(Arc<Netns>),
}

impl PodNetwork {
    /// Connects the VM to the interface in `netns`, if there is one by now and the VM is not connected.
    ///
    /// # Errors
    /// When the namespace has several interfaces, a step on the host fails, or the guest refuses: then nothing is connected.
    pub async fn connect(&self, vm: &Vm, netns: &bundle::Netns, name_servers: Vec<String>) -> Result<(), Error> {
        let mut state = self.0.lock().await;
        if !matches!(*state, State::Unconnected) {
            return Ok(());
        }
        let (place, pid) = (netns.clone(), vm.pid());
        let found = blocking(move || {
            let netns = match &place {
                bundle::Netns::Existing(path) => Netns::open(path)?,
                bundle::Netns::OfVmm => Netns::of_process(pid)?,
            };
            Ok((netns.interface()?, Arc::new(netns)))
        });
        *state = match (found.await?, netns) {
            ((Some(interface), namespace), _) => {
                attach(vm, &namespace, interface, name_servers).await?;
                State::Connected(namespace)
            }
            ((None, namespace), bundle::Netns::Existing(_)) => State::Without(namespace),
            // Filled later, or never.
            ((None, _), bundle::Netns::OfVmm) => State::Unconnected,
        };
        Ok(())
    }

    /// Listens for connections to the loopback of the pod's namespace; `None` before there is one.
    ///
    /// # Errors
    /// When the kernel cannot redirect them.
    pub async fn loopback(&self) -> Result<Option<Loopback>, NetworkError> {
        let netns = match &*self.0.lock().await {
            State::Unconnected => return Ok(None),
            State::Connected(netns) | State::Without(netns) => netns.clone(),
        };
        blocking(move || netns.loopback()).await.map(Some)
    }

    /// Takes back what is in the namespace, once the VM has ended.
    pub async fn disconnect(&self) {
        let mut state = self.0.lock().await;
        if let State::Connected(netns) = std::mem::take(&mut *state) {
            take_back(netns).await;
        }
    }
}

async fn attach(vm: &Vm, netns: &Arc<Netns>, interface: Interface, name_servers: Vec<String>) -> Result<(), Error> {
    let (place, wanted) = (netns.clone(), interface.clone());
    let tap = blocking(move || place.connect(&wanted)).await?;
    let attached = give(vm, tap, &interface, name_servers).await;
    if attached.is_err() {
        take_back(netns.clone()).await;
    }
    attached
}

async fn give(vm: &Vm, tap: Tap, interface: &Interface, name_servers: Vec<String>) -> Result<(), Error> {
    vm.attach_tap(tap.into_file()).await?;
    let configured = vm.agent().configure_network(agent_call(), &request(interface, name_servers)).await;
    configured.map_err(Error::agent("configure the pod's network"))?;
    log::info!("the guest has the pod's interface {}", interface.name);
    Ok(())
}

async fn take_back(netns: Arc<Netns>) {
    if let Err(error) = blocking(move || netns.disconnect()).await {
        log::warn!(
            "the pod's network namespace is not as it was: {}",
            crate::describe::describe(&error)
        );
    }
}

fn request(interface: &Interface, name_servers: Vec<String>) -> ConfigureNetworkRequest {
    let prefixed = |(address, length): &(std::net::IpAddr, u8)| format!("{address}/{length}");
    let or_empty = |address: Option<std::net::IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let routes = interface.routes.iter().map(|route| Route {
        destination: prefixed(&route.destination),
        gateway: or_empty(route.gateway),
        source: or_empty(route.source),
        on_link: route.on_link,
        metric: route.metric,
        ..Default::default()
    });
    let neighbours = interface.neighbours.iter().map(|(address, hardware)| Neighbour {
        address: address.to_string(),
        hardware_address: hardware.to_vec(),
        ..Default::default()
    });
    ConfigureNetworkRequest {
        interface: interface.name.clone(),
        addresses: interface.addresses.iter().map(prefixed).collect(),
        routes: routes.collect(),
        nameservers: name_servers,
        hardware_address: interface.mac.to_vec(),
        mtu: interface.mtu,
        neighbours: neighbours.collect(),
        ..Default::default()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static) -> Result<T, NetworkError> {
    let ended = spawn_blocking(work).await;
    ended.unwrap_or_else(|failure| Err(NetworkError::Step("work in the pod's network namespace", io::Error::other(failure))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_guest_gets_what_the_host_has() {
        let interface = Interface {
            name: "eth0".into(),
            index: 2,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1450,
            addresses: vec![(ip("10.88.0.2"), 16), (ip("fd00::2"), 64)],
            routes: vec![pod_network::Route {
                destination: (ip("0.0.0.0"), 0),
                gateway: Some(ip("169.254.1.1")),
                source: None,
                on_link: true,
                metric: 7,
            }],
            neighbours: vec![(ip("169.254.1.1"), [2, 0, 0, 0, 0, 9])],
        };
        let request = request(&interface, vec!["10.0.0.10".into()]);
        assert_eq!(request.addresses, ["10.88.0.2/16", "fd00::2/64"]);
        let route = &request.routes[0];
        assert_eq!(
            (
                &route.destination[..],
                &route.gateway[..],
                &route.source[..],
                route.on_link,
                route.metric
            ),
            ("0.0.0.0/0", "169.254.1.1", "", true, 7)
        );
        assert_eq!(request.neighbours[0].hardware_address, [2, 0, 0, 0, 0, 9]);
        assert_eq!((request.mtu, request.hardware_address.len()), (1450, 6));
    }
}
