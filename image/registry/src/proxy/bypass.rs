//! `NO_PROXY` as Go programs read it, containerd and docker among them: ports count, a leading dot leaves the name itself out, and
//! addresses are never looked up.

use ipnet::IpNet;
use std::net::IpAddr;
use url::{Host, Url};

/// Hosts that no proxy is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypass(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    All,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// `.name`, and whether the name itself is meant too.
    Domain(String, bool, Option<u16>),
}

impl Bypass {
    pub(super) fn new(text: &str) -> Self {
        Self(
            text.split(',')
                .filter_map(|entry| Entry::new(&entry.trim().to_ascii_lowercase()))
                .collect(),
        )
    }

    /// Why a URL is reached without a proxy; `None` if it is not.
    pub(super) fn reason(&self, url: &Url) -> Option<String> {
        let port = url.port_or_known_default();
        let (name, address) = match url.host()? {
            Host::Domain(name) => (name.to_ascii_lowercase(), None),
            Host::Ipv4(address) => (String::new(), Some(IpAddr::V4(address))),
            Host::Ipv6(address) => (String::new(), Some(address.to_canonical())),
        };
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return Some("this machine itself is never reached through a proxy".to_owned());
        }
        let entry = self.0.iter().find(|entry| entry.takes(name, address, port))?;
        Some(format!("NO_PROXY lists {}", entry.shown()))
    }
}

impl Entry {
    fn new(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = text.parse() {
            return Some(Self::Network(network));
        }
        let bare = |host: &str| {
            host.strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host)
                .to_owned()
        };
        if let Ok(address) = bare(text).parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (bare(host), Some(port.parse().ok()?)),
            None => (text.to_owned(), None),
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let below = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&host);
        let name = below.strip_prefix('.').unwrap_or(below);
        (!name.is_empty()).then(|| Self::Domain(format!(".{name}"), !below.starts_with('.'), port))
    }

    fn takes(&self, name: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let same_port = |wanted: Option<u16>| wanted.is_none() || wanted == port;
        match self {
            Self::All => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Address(wanted, at) => address == Some(*wanted) && same_port(*at),
            Self::Domain(below, itself, at) => {
                let named = name.len() > below.len() && name.ends_with(below) || *itself && name == &below[1..];
                named && same_port(*at)
            }
        }
    }

    fn shown(&self) -> String {
        let with = |text: String, port: &Option<u16>| port.map_or(text.clone(), |port| format!("{text}:{port}"));
        match self {
            Self::All => "*".to_owned(),
            Self::Network(network) => network.to_string(),
            Self::Address(address, port) => with(address.to_string(), port),
            Self::Domain(below, true, port) => with(below[1..].to_owned(), port),
            Self::Domain(below, false, port) => with(below.clone(), port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_take_what_go_programs_take() {
        for (list, url, expected) in [
            ("*", "https://r.corp", true),
            (".corp", "https://r.corp", true),
            ("*.corp", "https://r.corp", true),
            (".r.corp", "https://r.corp", false),
            ("r.corp", "https://r.corp", true),
            ("r.corp", "https://eu.r.corp", true),
            ("r.corp", "https://evilr.corp", false),
            ("R.Corp , x", "https://r.corp", true),
            ("r.corp:5000", "https://r.corp:5000", true),
            ("r.corp:5000", "https://r.corp", false),
            ("r.corp:443", "https://r.corp", true),
            ("r.corp:443", "http://r.corp", false),
            ("10.0.0.0/8", "https://10.1.2.3:5000", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3:5000", true),
            ("10.1.2.3:80", "https://10.1.2.3:5000", false),
            ("fd00::/8", "https://[fd00::1]", true),
            ("[fd00::1]:443", "https://[fd00::1]", true),
            ("fd00::1", "https://[fd00::1]:5000", true),
            ("", "https://127.0.0.1:5000", true),
            ("", "https://[::1]", true),
            ("", "https://localhost:5000", true),
            ("", "https://r.corp", false),
            (",.,:,*.", "https://r.corp", false),
        ] {
            let reason = Bypass::new(list).reason(&Url::parse(url).unwrap());
            assert_eq!(reason.is_some(), expected, "{list} {url} {reason:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(list: String, host in "[a-z0-9.:]{1,12}") {
            if let Ok(url) = Url::parse(&format!("https://{host}")) {
                Bypass::new(&list).reason(&url);
            }
        }
    }
}
