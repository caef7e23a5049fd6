//! The guest's network: its device, and forwarded ports, which are the host's connections to listeners in the guest.

mod device;
mod listeners;
mod netlink;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
};

use agent_protocol::limits::FORWARD_DEADLINE;
use policy::{Permit, action::PortForward};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

pub use self::device::configure;
use self::listeners::Owner;
use crate::{cgroup, streams::Stream};

/// Why a connection or an interface failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Nothing listens on IPv4's or IPv6's loopback.
    #[error("nothing in the guest listens on port {0}")]
    NobodyListens(u16),
    /// Another container of the pod has a listener there.
    #[error("port {0} is not this container's alone")]
    AnothersPort(u16),
    /// It is not known whose the port is.
    #[error("the listeners on port {port} cannot be listed")]
    Unknown {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The VM has no network device.
    #[error("the VM has no network device")]
    NoDevice,
    /// It is not known which is meant.
    #[error("the VM has several network devices")]
    SeveralDevices,
    /// The kernel refused a part of the configuration, and the rest was undone.
    #[error("{step} failed")]
    Step {
        /// Which part.
        step: &'static str,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused a part, and the rest could not be undone.
    #[error("a request failed, and what it had done could not be undone")]
    NotUndone,
    /// The connection was made but cannot be used.
    #[error("the connection cannot be used")]
    Unusable(#[source] io::Error),
}

/// Connects to the port of the permit; blocks until the connection is accepted.
///
/// The listener is the container's before and after: one that closes its port, so that another can take it, gets no connection.
pub fn connect(permit: Permit<'_, PortForward>) -> Result<TcpStream, NetworkError> {
    let PortForward { container_id, port } = permit.action();
    let of_container = || cgroup::processes(container_id);
    let connection = connect_owned(*port, of_container)?;
    permit.commit();
    Ok(connection)
}

fn connect_owned(port: u16, pids: impl Fn() -> io::Result<Vec<i32>>) -> Result<TcpStream, NetworkError> {
    let check = || {
        let owner = pids().and_then(|pids| listeners::are_only_of(port, &pids));
        match owner.map_err(|cause| NetworkError::Unknown { port, cause })? {
            Owner::Container => Ok(()),
            Owner::Nobody => Err(NetworkError::NobodyListens(port)),
            Owner::Another => Err(NetworkError::AnothersPort(port)),
        }
    };
    check()?;
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let connected = loopback
        .into_iter()
        .find_map(|address| TcpStream::connect_timeout(&SocketAddr::new(address, port), FORWARD_DEADLINE).ok());
    let connection = connected.ok_or(NetworkError::NobodyListens(port))?;
    check()?;
    connection.set_nonblocking(true).map_err(NetworkError::Unusable)?;
    Ok(connection)
}

/// Copies in both directions until both sides have ended.
pub fn join<S>(connection: TcpStream, mut stream: Stream<S>) -> Result<(), NetworkError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = tokio::net::TcpStream::from_std(connection).map_err(NetworkError::Unusable)?;
    tokio::spawn(async move {
        // Either side may disconnect at any time.
        let _ = copy_bidirectional(&mut connection, &mut stream.io).await;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{ContainerId, Enforcer};
    use std::{io::Read, net::TcpListener};

    #[test]
    fn the_port_of_a_container_is_reached_and_no_other() {
        let own = || Ok(vec![std::process::id() as i32]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = connect_owned(port, own).unwrap();
        let (mut taken, _) = listener.accept().unwrap();
        drop(connection);
        // Only a faulty program reaches it.
        taken.set_read_timeout(Some(FORWARD_DEADLINE)).unwrap();
        assert_eq!(taken.read(&mut [0; 1]).unwrap(), 0);
        let anothers = connect_owned(port, || Ok(Vec::new()));
        assert!(matches!(anothers, Err(NetworkError::AnothersPort(_))));
        drop(listener);
        assert!(matches!(connect_owned(port, own), Err(NetworkError::NobodyListens(_))));
    }

    #[test]
    fn no_port_is_reached_unless_the_policy_allows_it() {
        let forward = || PortForward {
            container_id: ContainerId::new("web"),
            port: 80,
        };
        let mut silent = Enforcer::new("package policy\napi_version := \"0.12.0\"\n").unwrap();
        let denied = silent.enforce(forward()).map(drop).unwrap_err();
        assert_eq!(denied.point(), "port_forward");
        let mut open = Enforcer::new(policy::OPEN_DOOR).unwrap();
        open.enforce(forward()).unwrap().commit();
    }
}
