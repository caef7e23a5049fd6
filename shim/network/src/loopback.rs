//! A listener for every TCP port of a namespace's loopback.

use crate::{
    NetworkError,
    bpf::{self, Attached},
};
use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
};

/// The listeners; dropping this gives loopback back.
#[derive(Debug)]
pub struct Loopback {
    v4: TcpListener,
    /// Absent where the kernel has no IPv6.
    v6: Option<TcpListener>,
    _attached: Attached,
}

impl Loopback {
    /// The listeners of IPv4 and IPv6, nonblocking. The local address of an accepted connection has the port that the client
    /// asked for.
    ///
    /// # Errors
    /// When their descriptors cannot be duplicated.
    pub fn listeners(&self) -> io::Result<(TcpListener, Option<TcpListener>)> {
        Ok((self.v4.try_clone()?, self.v6.as_ref().map(TcpListener::try_clone).transpose()?))
    }
}

/// Listens in the calling thread's namespace, which is `netns`.
pub fn listen(netns: &File) -> Result<Loopback, NetworkError> {
    let failed = |e| NetworkError::Step("listen on the pod's loopback", e);
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok();
    for listener in [Some(&v4), v6.as_ref()].into_iter().flatten() {
        listener.set_nonblocking(true).map_err(failed)?;
    }
    let attached = bpf::attach(netns, &v4, v6.as_ref());
    let attached = attached.map_err(|e| NetworkError::Step("redirect the pod's loopback (does the kernel have BPF?)", e))?;
    Ok(Loopback {
        v4,
        v6,
        _attached: attached,
    })
}
