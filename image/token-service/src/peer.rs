//! Where a request comes from: the connection's address, or what a proxy that is known says of it.

use axum::http::HeaderMap;
use std::fmt;
use std::net::IpAddr;

/// The client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// The connection's own address; if that is a known proxy, the last address of `X-Forwarded-For` that is none.
    pub(crate) fn new(connection: IpAddr, proxies: &[IpAddr], headers: &HeaderMap) -> Self {
        let connection = connection.to_canonical();
        if !proxies.contains(&connection) {
            return Self(connection);
        }
        let mut client = connection;
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            for text in value.to_str().unwrap_or_default().rsplit(',') {
                let Ok(address) = text.trim().parse::<IpAddr>() else {
                    return Self(client);
                };
                client = address.to_canonical();
                if !proxies.contains(&client) {
                    return Self(client);
                }
            }
        }
        Self(client)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_proxy_speaks_for_others() {
        let proxies = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        for (connection, header, client) in [
            ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, junk", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", header.parse().unwrap());
            let peer = Peer::new(connection.parse().unwrap(), &proxies, &headers);
            assert_eq!(peer.to_string(), client, "{connection} {header}");
        }
    }
}
