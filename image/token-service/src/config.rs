//! The configuration file of the service, checked before anything starts.

use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest configuration file in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Shortest and longest life of a token in seconds: clients renew at sixty, and a revoked role lives on as long as its tokens.
const LIFETIME: std::ops::RangeInclusive<u32> = 60..=3600;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 65_536;

/// A configuration that is complete and within its limits.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) database: String,
    pub(crate) keys: Vec<KeyFiles>,
    pub(crate) tls: Option<KeyFiles>,
    pub(crate) settings: Settings,
}

/// What handlers of requests need of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) issuer: String,
    pub(crate) services: Vec<String>,
    /// Seconds.
    pub(crate) token_lifetime: u32,
    pub(crate) public_url: Option<String>,
    pub(crate) proxies: Vec<IpAddr>,
    pub(crate) log_requests: bool,
    pub(crate) connections: usize,
    pub(crate) audit_days: u32,
    /// Entries of the audit trail that are kept, so that nobody fills the disk by asking.
    pub(crate) audit_entries: u32,
    pub(crate) failed_logins: FailedLogins,
    pub(crate) tls: bool,
}

/// A private key with its certificate, both PEM files.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFiles {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
}

/// How many logins may fail before more are refused.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FailedLogins {
    pub(crate) per_address: u32,
    pub(crate) per_account: u32,
    /// Seconds.
    pub(crate) window: u32,
}

impl Default for FailedLogins {
    fn default() -> Self {
        Self {
            per_address: 20,
            per_account: 100,
            window: 180,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    issuer: String,
    services: Vec<String>,
    database: String,
    #[serde(default = "default_lifetime")]
    token_lifetime: u32,
    keys: Vec<KeyFiles>,
    tls: Option<KeyFiles>,
    public_url: Option<String>,
    #[serde(default)]
    proxies: Vec<IpAddr>,
    #[serde(default)]
    log_requests: bool,
    #[serde(default = "default_connections")]
    connections: usize,
    #[serde(default = "default_audit_days")]
    audit_days: u32,
    #[serde(default = "default_audit_entries")]
    audit_entries: u32,
    #[serde(default)]
    failed_logins: FailedLogins,
}

fn default_lifetime() -> u32 {
    300
}

fn default_connections() -> usize {
    1024
}

fn default_audit_entries() -> u32 {
    2_000_000
}

fn default_audit_days() -> u32 {
    365
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More than a mebibyte.
    #[error("the configuration {} is larger than {FILE_MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not TOML, a key that does not exist, or a value of the wrong kind.
    #[error("the configuration is not valid: {message}")]
    Syntax {
        /// What is wrong, and in which line; never the line itself, which may hold a password of the database.
        message: String,
    },
    /// A value outside its limits.
    #[error("the configuration's {key} {rule}")]
    Value {
        /// Its key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the file's name where the file itself is at fault.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_MAX_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] and [`ConfigError::Value`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            ConfigError::Syntax {
                message: format!("line {line}: {}", error.message()),
            }
        })?;
        let check = |holds: bool, key, rule| if holds { Ok(()) } else { Err(ConfigError::Value { key, rule }) };
        let text = |text: &str| !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
        check(text(&file.issuer), "issuer", "is 1 to 255 printable characters")?;
        check(!file.services.is_empty(), "services", "names at least one registry")?;
        let services = file.services.len() <= 100 && file.services.iter().all(|service| text(service));
        check(services, "services", "are at most 100 names of 1 to 255 printable characters")?;
        check(LIFETIME.contains(&file.token_lifetime), "token_lifetime", "is 60 to 3600 seconds")?;
        check((1..=10).contains(&file.keys.len()), "keys", "are one to ten")?;
        let connections = (1..=CONNECTIONS_MAX).contains(&file.connections);
        check(connections, "connections", "are 1 to 65536")?;
        check((1..=36_500).contains(&file.audit_days), "audit_days", "are 1 to 36500")?;
        check(file.audit_entries >= 1000, "audit_entries", "are at least 1000")?;
        let limits = file.failed_logins;
        let positive = limits.per_address > 0 && limits.per_account > 0 && (1..=86_400).contains(&limits.window);
        check(positive, "failed_logins", "are at least one, in a window of 1 to 86400 seconds")?;
        let url = |url: &String| (url.starts_with("https://") || url.starts_with("http://")) && text(url);
        check(
            file.public_url.as_ref().is_none_or(url),
            "public_url",
            "begins with https:// or http://",
        )?;
        Ok(Self {
            listen: file.listen,
            database: file.database,
            keys: file.keys,
            settings: Settings {
                issuer: file.issuer,
                services: file.services,
                token_lifetime: file.token_lifetime,
                public_url: file.public_url,
                proxies: file.proxies,
                log_requests: file.log_requests,
                connections: file.connections,
                audit_days: file.audit_days,
                audit_entries: file.audit_entries,
                failed_logins: file.failed_logins,
                tls: file.tls.is_some(),
            },
            tls: file.tls,
        })
    }

    /// The database's URL. It may hold a password.
    pub fn database(&self) -> &str {
        &self.database
    }
}

impl Settings {
    /// Whether browsers reach the service by HTTPS, directly or through a proxy.
    pub(crate) fn secure(&self) -> bool {
        self.tls || self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    pub(crate) fn failure_window(&self) -> Duration {
        Duration::from_secs(self.failed_logins.window.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
listen = "127.0.0.1:5001"
issuer = "i"
services = ["container_registry"]
database = "postgres://casemate:hunter2@db/registry"

[[keys]]
key = "k.pem"
certificate = "c.pem"
"#;

    #[test]
    fn defaults_fill_what_is_absent() {
        let config = Config::parse(WHOLE).unwrap();
        assert_eq!(config.settings.token_lifetime, 300);
        assert!(!config.settings.secure());
        let tls = format!("{WHOLE}[tls]\nkey = \"k\"\ncertificate = \"c\"\n");
        assert!(Config::parse(&tls).unwrap().settings.secure());
    }

    #[test]
    fn what_is_wrong_is_named_without_the_line() {
        for (from, to, says) in [
            ("issuer = \"i\"", "", "missing field `issuer`"),
            ("issuer", "isuer", "unknown field `isuer`"),
            ("issuer = \"i\"", "issuer = \"\"", "issuer is 1 to"),
            ("[\"container_registry\"]", "[]", "services names"),
            ("issuer", "token_lifetime = 59\nissuer", "token_lifetime is"),
            ("issuer", "token_lifetime = 3601\nissuer", "token_lifetime is"),
            ("issuer", "public_url = \"ftp://x\"\nissuer", "public_url begins"),
            ("issuer", "audit_days = 0\nissuer", "audit_days are"),
            ("issuer", "audit_entries = 0\nissuer", "audit_entries are"),
            ("hunter2@db/registry\"", "hunter2@db/registry", "line 5"),
        ] {
            let error = Config::parse(&WHOLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
