//! Which proxy a request takes. The configuration can set three variables and no other, and they go before those of the process.

mod bypass;

pub use bypass::Bypass;

use crate::config::{BYPASS, HTTP, HTTPS, Overrides};
use std::fmt;
use url::Url;
use zeroize::Zeroizing;

/// The proxy variables of a process.
#[derive(Default)]
pub struct Environment(Overrides);

/// The proxies of one registry's requests.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    bypass: Bypass,
}

/// A proxy's URL, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    text: Zeroizing<String>,
    url: Url,
    variable: &'static str,
    configured: bool,
}

/// A variable that is no proxy's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no proxy: it must be an http:// or https:// URL")]
pub struct ProxyError(&'static str);

impl Environment {
    /// From a process's variables; each name is looked for in upper case, then in lower case.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let find = |name: &str| {
            let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
            filled(name).or_else(|| filled(&name.to_ascii_lowercase())).map(Zeroizing::new)
        };
        Self(Overrides {
            http: find(HTTP),
            https: find(HTTPS),
            bypass: find(BYPASS),
        })
    }

    /// Of this process.
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }
}

impl Proxies {
    pub(crate) fn new(overrides: &Overrides, process: &Environment) -> Result<Self, ProxyError> {
        let proxy = |own: &Option<Zeroizing<String>>, process: &Option<Zeroizing<String>>, variable| {
            let text = own.as_ref().or(process.as_ref()).filter(|text| !text.is_empty());
            text.map(|text| Proxy::new(text, variable, own.is_some())).transpose()
        };
        let bypass = overrides.bypass.as_ref().or(process.0.bypass.as_ref());
        Ok(Self {
            http: proxy(&overrides.http, &process.0.http, HTTP)?,
            https: proxy(&overrides.https, &process.0.https, HTTPS)?,
            bypass: bypass.map(|text| Bypass::new(text)).unwrap_or_default(),
        })
    }

    /// The proxy for a request; `None`: the host itself.
    pub fn for_url(&self, url: &Url) -> Option<&Proxy> {
        self.chosen(url).ok()
    }

    /// Passwords of the proxies.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Zeroizing<String>> {
        [&self.http, &self.https].into_iter().flatten().filter_map(Proxy::secret)
    }

    /// The proxy, or why there is none.
    ///
    /// # Errors
    /// There is none.
    pub fn chosen(&self, url: &Url) -> Result<&Proxy, String> {
        let (proxy, variable) = match url.scheme() {
            "https" => (&self.https, HTTPS),
            _ => (&self.http, HTTP),
        };
        let proxy = proxy.as_ref().ok_or_else(|| format!("{variable} is not set"))?;
        match self.bypass.reason(url) {
            Some(reason) => Err(reason),
            None => Ok(proxy),
        }
    }
}

impl Proxy {
    fn new(text: &str, variable: &'static str, configured: bool) -> Result<Self, ProxyError> {
        let text = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let url = Url::parse(&text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        Ok(Self {
            url: url.ok_or(ProxyError(variable))?,
            text: Zeroizing::new(text),
            variable,
            configured,
        })
    }

    /// The URL as it was set, password and all.
    pub fn expose(&self) -> &str {
        &self.text
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The text that no message may show.
    fn secret(&self) -> Option<Zeroizing<String>> {
        self.url.password().map(|password| Zeroizing::new(password.to_owned()))
    }

    /// Where it was set.
    pub fn source(&self) -> String {
        match self.configured {
            true => format!("{} of extra-env", self.variable),
            false => format!("{} of the environment", self.variable),
        }
    }
}

impl fmt::Display for Proxy {
    /// Without the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        match self.url.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(extra: &str, process: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        let overrides = Overrides::take(toml::from_str(extra).unwrap(), &mut Vec::new()).unwrap();
        let variable = |name: &str| process.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxies::new(&overrides, &Environment::new(variable))
    }

    fn chosen(extra: &str, process: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = proxies(extra, process).unwrap();
        proxies.for_url(&Url::parse(url).unwrap()).map(|proxy| proxy.expose().to_owned())
    }

    #[test]
    fn extra_env_goes_before_the_process() {
        let process = [("HTTPS_PROXY", "http://old:1"), ("http_proxy", "plain:3128")];
        assert_eq!(chosen("", &process, "https://r.corp/").unwrap(), "http://old:1");
        assert_eq!(chosen("", &process, "http://r.corp/").unwrap(), "http://plain:3128");
        assert_eq!(
            chosen("HTTPS_PROXY='https://new'", &process, "https://r.corp/").unwrap(),
            "https://new"
        );
        assert_eq!(chosen("HTTPS_PROXY=''", &process, "https://r.corp/"), None);
        assert_eq!(chosen("https_proxy='http://x'", &[], "https://r.corp/"), None);
        assert_eq!(chosen("NO_PROXY='*'", &process, "https://r.corp/"), None);
        for bad in ["HTTP_PROXY='socks5://p'", "HTTP_PROXY='http://'", "HTTP_PROXY='http://a b'"] {
            assert_eq!(proxies(bad, &[]).unwrap_err(), ProxyError("HTTP_PROXY"), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let proxies = proxies("HTTPS_PROXY='http://user:hunter2@p.corp:3128/'", &[]).unwrap();
        let proxy = proxies.for_url(&Url::parse("https://r.corp").unwrap()).unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), "http://p.corp:3128 http://p.corp:3128");
        assert!(!format!("{proxies:?}").contains("hunter2"));
        assert_eq!(proxy.secret().unwrap().as_str(), "hunter2");
    }
}
