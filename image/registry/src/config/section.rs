//! What a configuration says of one registry.

use super::{ConfigError, Key, Warning, shown};
use crate::certificates::{self, Certificates};
use crate::credentials::Credentials;
use crate::secret::Secret;
use toml::{Table, Value};

/// One table of `registries`.
#[derive(Debug)]
pub struct Section {
    key: Key,
    credentials: Credentials,
    trust: Trust,
    mirror: Option<String>,
    /// `ca-certs` is there although `insecure-skip-verify` makes it useless.
    unused_certificates: bool,
}

/// Whose certificates a registry may have.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Trust {
    /// Those of the web's authorities, as the program has them.
    #[default]
    WebPki,
    /// Those of the section's authorities, or one of the listed certificates itself.
    Pinned(Certificates),
    /// None: `ca-certs` holds no certificate. Never the web's authorities instead.
    Nothing,
    /// Any.
    SkipVerify,
}

impl Section {
    pub(super) fn take(key: Key, place: &str, fields: Table, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let mut text: [Option<Secret>; 7] = Default::default();
        let mut skip_verify = false;
        const TEXTS: [&str; 7] = [
            "username",
            "password",
            "auth",
            "identitytoken",
            "registrytoken",
            "ca-certs",
            "mirror",
        ];
        for (name, value) in fields {
            match (TEXTS.iter().position(|text| *text == name), value) {
                (Some(at), Value::String(value)) => text[at] = Some(Secret::new(value)),
                (Some(_), _) => return Err(ConfigError::field(place, format!("{name} must be a string"))),
                (None, Value::Boolean(value)) if name == "insecure-skip-verify" => skip_verify = value,
                (None, _) if name == "insecure-skip-verify" => {
                    return Err(ConfigError::field(place, format!("{name} must be true or false, without quotes")));
                }
                (None, Value::Table(_) | Value::Array(_)) => {
                    let problem = format!(
                        "{} is no setting; if it is the rest of the registry's name, put the whole name in quotes: [registries.\"ghcr.io\"]",
                        shown(&name)
                    );
                    return Err(ConfigError::field(place, problem));
                }
                (None, _) => warnings.push(Warning {
                    place: place.to_owned(),
                    text: format!("{} is not known and ignored", shown(&name)),
                }),
            }
        }
        // An empty text is the same as none.
        let [username, password, auth, identity_token, registry_token, ca_certs, mirror] =
            text.map(|text| text.filter(|text| !text.expose().is_empty()));
        if username.is_some() != password.is_some() {
            warnings.push(Warning {
                place: place.to_owned(),
                text: "username and password count only together, and one is missing".to_owned(),
            });
        }
        let username = username.map(|text| text.expose().to_owned());
        let credentials = Credentials::new(username, password, auth, identity_token, registry_token)
            .map_err(|problem| ConfigError::field(place, problem.to_string()))?;
        let (trust, unused_certificates) = match (skip_verify, ca_certs) {
            (true, ca_certs) => (Trust::SkipVerify, ca_certs.is_some()),
            (false, None) => (Trust::WebPki, false),
            (false, Some(pem)) => {
                let found = certificates::parse(pem.expose());
                warnings.extend(found.skipped.into_iter().map(|text| Warning {
                    place: place.to_owned(),
                    text: format!("ca-certs: {text}"),
                }));
                (found.certificates.map_or(Trust::Nothing, Trust::Pinned), false)
            }
        };
        Ok(Self {
            key,
            credentials,
            trust,
            mirror: mirror.map(|text| text.expose().to_owned()),
            unused_certificates,
        })
    }

    /// The registries it is for.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whose certificates it trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where requests go instead, as the file has it.
    pub fn mirror(&self) -> Option<&str> {
        self.mirror.as_deref()
    }

    /// Whether it has `ca-certs` that `insecure-skip-verify` makes useless.
    pub fn has_unused_certificates(&self) -> bool {
        self.unused_certificates
    }
}

impl Trust {
    /// Its name in output.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::WebPki => "webpki",
            Self::Pinned(_) => "pinned-ca",
            Self::Nothing => "trust-nothing",
            Self::SkipVerify => "skip-verify",
        }
    }

    /// How many certificates of `ca-certs` it trusts; `None` if it does not look at them.
    pub fn certificates(&self) -> Option<usize> {
        match self {
            Self::Pinned(certificates) => Some(certificates.len()),
            Self::Nothing => Some(0),
            Self::WebPki | Self::SkipVerify => None,
        }
    }

    /// Whether plain HTTP may be tried once HTTPS has found no TLS server.
    pub fn allows_plain_http(&self) -> bool {
        *self == Self::SkipVerify
    }
}
