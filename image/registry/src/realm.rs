//! Which token services a registry may name. It is the registry's choice where credentials are sent, so it may not be any address of the
//! machine that pulls, or of its network.

use std::net::{IpAddr, Ipv6Addr};
use url::{Host, Url};

/// Why credentials do not go to a token service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealmError {
    /// Not a URL.
    #[error("the token service that the registry names is not a URL")]
    Malformed,
    /// Neither HTTPS nor plain HTTP where that is allowed.
    #[error("the token service {0} must be reached by https; plain HTTP needs insecure-skip-verify in the registry's section")]
    Scheme(String),
    /// A URL with a user in it.
    #[error("the token service's URL has a user in it")]
    User,
    /// A literal address that leads to this machine or its network.
    #[error("the token service {0} is an address of this machine or its network, and not the registry's own")]
    Inside(String),
}

/// The rules of one registry.
#[derive(Clone, Debug)]
pub(crate) struct RealmRules {
    /// The registry's own host and port.
    pub(crate) registry: (Option<Host>, Option<u16>),
    pub(crate) allows_plain_http: bool,
}

impl RealmRules {
    /// For the registry at a URL.
    pub(crate) fn new(registry: &Url, allows_plain_http: bool) -> Self {
        Self {
            registry: place(registry),
            allows_plain_http,
        }
    }

    /// Parses and checks a realm.
    pub(crate) fn parse(&self, realm: &str) -> Result<Url, RealmError> {
        let url = Url::parse(realm).map_err(|_| RealmError::Malformed)?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks a URL, the realm's or one that it redirects to.
    pub(crate) fn check(&self, url: &Url) -> Result<(), RealmError> {
        let shown = || url.host_str().unwrap_or_default().chars().take(100).collect::<String>();
        match url.scheme() {
            "https" => {}
            "http" if self.allows_plain_http => {}
            _ => return Err(RealmError::Scheme(shown())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RealmError::User);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(address.to_canonical()),
            Some(Host::Domain(_)) => None,
            None => return Err(RealmError::Malformed),
        };
        if address.is_some_and(is_inside) && place(url) != self.registry {
            return Err(RealmError::Inside(shown()));
        }
        Ok(())
    }
}

fn place(url: &Url) -> (Option<Host>, Option<u16>) {
    (url.host().map(|host| host.to_owned()), url.port_or_known_default())
}

/// Loopback, private, link-local or unspecified.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || is_inside_v6(v6),
    }
}

/// Unique local (fc00::/7), link-local (fe80::/10).
fn is_inside_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(registry: &str, allows_plain_http: bool) -> RealmRules {
        RealmRules::new(&Url::parse(registry).unwrap(), allows_plain_http)
    }

    #[test]
    fn a_realm_is_outside_or_the_registry_itself() {
        for registry in ["https://r.corp", "https://127.0.0.1:5000"] {
            let rules = rules(registry, false);
            for good in [
                "https://auth.corp/token",
                "https://8.8.8.8/x",
                "https://[2001:db8::1]/",
                "https://localhost/",
            ] {
                assert!(rules.parse(good).is_ok(), "{good}");
            }
            for inside in [
                "https://127.0.0.1/",
                "https://127.0.0.1:5001/",
                "https://0.0.0.0/",
                "https://10.0.0.1/",
                "https://172.16.0.1/",
                "https://192.168.1.1/",
                "https://169.254.169.254/latest",
                "https://2130706433/",
                "https://0x7f.1/",
                "https://[::1]/",
                "https://[::]/",
                "https://[::ffff:10.0.0.1]/",
                "https://[fd00::1]/",
                "https://[fe80::1]/",
            ] {
                assert!(matches!(rules.parse(inside), Err(RealmError::Inside(_))), "{inside}");
            }
        }
        let own = rules("https://127.0.0.1:5000", false);
        assert!(own.parse("https://127.0.0.1:5000/token").is_ok());
        assert!(own.parse("https://127.1:5000/token").is_ok());
    }

    #[test]
    fn plain_http_needs_the_flag() {
        assert!(matches!(
            rules("https://r.corp", false).parse("http://auth.corp/"),
            Err(RealmError::Scheme(_))
        ));
        assert!(rules("https://r.corp", true).parse("http://auth.corp/").is_ok());
        for bad in [
            "ftp://auth.corp/",
            "file:///etc/passwd",
            "",
            "auth.corp",
            "https://u:p@auth.corp/",
            "https://u@auth.corp/",
        ] {
            assert!(rules("https://r.corp", true).parse(bad).is_err(), "{bad}");
        }
    }
}
