//! How one registry is reached: the choice that a configuration makes for it, and that `casemate registry which` explains.

use crate::config::{Config, Section, Trust};
use crate::credentials::Credentials;
use crate::name::RegistryName;
use crate::proxy::{Environment, Proxies, ProxyError};
use url::Url;
use zeroize::Zeroizing;

/// Everything that a registry's requests depend on.
#[derive(Clone, Debug)]
pub struct Access {
    registry: RegistryName,
    url: Url,
    section: Option<String>,
    credentials: Credentials,
    /// Where the credentials are from, in messages.
    source: String,
    trust: Trust,
    proxies: Proxies,
    mirror: Option<Result<Url, MirrorError>>,
}

/// Why a registry cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A proxy that is none.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A registry whose name is no host.
    #[error("{0:?} is no registry's host")]
    Registry(String),
}

/// Why requests do not go to a section's mirror. The rest of the file can be used all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// No URL.
    #[error("mirror of section {0:?} is no mirror: it must be an http:// or https:// URL without a user")]
    Form(String),
    /// Plain HTTP.
    #[error("mirror of section {0:?} must be https; plain HTTP needs insecure-skip-verify in the same section")]
    Plain(String),
}

impl Config {
    /// The choice for a registry. The environment's proxies count where `extra-env` sets none.
    ///
    /// # Errors
    /// A proxy is no URL.
    pub fn access(&self, registry: &RegistryName, environment: &Environment) -> Result<Access, AccessError> {
        let section = self.section(registry);
        let key = section.map(|section| section.key().as_written().to_owned());
        let trust = section.map(|section| section.trust().clone()).unwrap_or_default();
        let mirror = section.and_then(|section| Some(mirror(section, section.mirror()?, &trust)));
        Ok(Access {
            registry: registry.clone(),
            url: https(registry)?,
            source: key.as_ref().map_or("no section".to_owned(), |key| format!("section {key:?}")),
            section: key,
            credentials: section.map(|section| section.credentials().clone()).unwrap_or_default(),
            trust,
            proxies: Proxies::new(self.overrides(), environment)?,
            mirror,
        })
    }
}

fn mirror(section: &Section, text: &str, trust: &Trust) -> Result<Url, MirrorError> {
    let key = || section.key().as_written().to_owned();
    let url = Url::parse(text)
        .ok()
        .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
    match url {
        Some(url) if url.scheme() == "https" => Ok(url),
        Some(url) if url.scheme() == "http" && trust.allows_plain_http() => Ok(url),
        Some(url) if url.scheme() == "http" => Err(MirrorError::Plain(key())),
        _ => Err(MirrorError::Form(key())),
    }
}

fn https(registry: &RegistryName) -> Result<Url, AccessError> {
    let url = Url::parse(&format!("https://{registry}")).ok();
    let url = url.filter(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none() && url.fragment().is_none());
    url.ok_or_else(|| AccessError::Registry(registry.as_str().to_owned()))
}

impl Access {
    /// The registry.
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// The key of the section that applies, as the file has it.
    pub fn section(&self) -> Option<&str> {
        self.section.as_deref()
    }

    /// What answers its challenges.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whom it may be.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The proxies of its requests.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// The registry's own URL.
    pub fn registry_url(&self) -> Url {
        self.url.clone()
    }

    /// Where requests go: the registry, or its mirror.
    ///
    /// # Errors
    /// The mirror cannot be used; nothing goes to the registry instead.
    pub fn origin(&self) -> Result<Url, MirrorError> {
        self.mirror.clone().unwrap_or_else(|| Ok(self.registry_url()))
    }

    /// Whether requests go to a mirror.
    pub fn is_mirrored(&self) -> bool {
        self.mirror.is_some()
    }

    /// What a mirror is told the registry is.
    pub(crate) fn mirrored(&self) -> Option<&str> {
        self.mirror.as_ref().map(|_| self.registry.namespace())
    }

    /// Uses these credentials of the registry if the section has none. `source` is where they are from, for messages. A mirror is another
    /// host: it gets what its section has, and never these.
    pub fn or_credentials(mut self, credentials: Credentials, source: String) -> Self {
        match (self.credentials.are_none(), self.is_mirrored()) {
            (true, false) => (self.credentials, self.source) = (credentials, source),
            (true, true) if !credentials.are_none() => self.source = format!("{}; not sent to its mirror: {source}", self.source),
            _ => {}
        }
        self
    }

    /// Every text that no message may show.
    pub(crate) fn secrets(&self) -> Vec<Zeroizing<String>> {
        self.credentials.secrets().into_iter().chain(self.proxies.secrets()).collect()
    }

    /// Where its credentials are from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn access(config: &str) -> Result<Access, AccessError> {
        Config::parse(config)
            .unwrap()
            .access(&RegistryName::new("r.corp"), &Environment::default())
    }

    #[test]
    fn a_mirror_by_plain_http_needs_the_flag() {
        let origin = |rest: &str| access(&format!("[registries.\"r.corp\"]\n{rest}")).unwrap().origin();
        assert_eq!(origin("mirror='https://m.corp/p?x=1'").unwrap().as_str(), "https://m.corp/p?x=1");
        assert_eq!(origin("mirror='http://m.corp'"), Err(MirrorError::Plain("r.corp".to_owned())));
        assert!(origin("mirror='http://m.corp'\ninsecure-skip-verify=true").is_ok());
        for bad in ["m.corp", "ftp://m.corp", "https://u:p@m.corp", "https://"] {
            assert_eq!(
                origin(&format!("mirror='{bad}'")),
                Err(MirrorError::Form("r.corp".to_owned())),
                "{bad}"
            );
        }
        assert_eq!(origin("mirror=''").unwrap().as_str(), "https://r.corp/");
    }

    #[test]
    fn a_mirror_gets_what_its_section_has_and_no_other_login() {
        let login =
            |password: &str| Credentials::new(Some("u".to_owned()), Some(Secret::new(password.to_owned())), None, None, None).unwrap();
        for (rest, offered, used, source) in [
            ("", login("p"), login("p"), "file f"),
            ("username='u'\npassword='own'", login("p"), login("own"), "section \"r.corp\""),
            (
                "mirror='https://m.corp'",
                login("p"),
                Credentials::default(),
                "section \"r.corp\"; not sent to its mirror: file f",
            ),
            (
                "mirror='no URL'",
                Credentials::default(),
                Credentials::default(),
                "section \"r.corp\"",
            ),
            (
                "mirror='https://m.corp'\nusername='u'\npassword='own'",
                login("p"),
                login("own"),
                "section \"r.corp\"",
            ),
        ] {
            let access = access(&format!("[registries.\"r.corp\"]\n{rest}")).unwrap();
            let access = access.or_credentials(offered, "file f".to_owned());
            assert_eq!((access.credentials(), access.source()), (&used, source), "{rest}");
        }
    }
}
