//! Requests of one registry: its TLS, its proxies, redirects that carry no credentials, and plain HTTP only where its section allows it.

use crate::config::Trust;
use crate::proxy::Proxies;
use crate::tls::{self, TlsError};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Proxy, Response, StatusCode};
use std::error::Error;
use std::io;
use std::time::Duration;
use url::{Origin, Url};
use zeroize::Zeroizing;

/// For the connection (10 s) and its TLS handshake (5 s), through proxies too.
const CONNECT_WAIT: Duration = Duration::from_secs(15);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);
/// For the head of an answer, and for the body of a short one.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Most redirects of one request.
const REDIRECTS_MAX: usize = 10;

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Client,
    allows_plain_http: bool,
    pins: bool,
}

/// One request.
pub(crate) struct Ask<'a> {
    pub(crate) url: Url,
    pub(crate) accept: &'a str,
    /// First byte that is wanted of the body.
    pub(crate) from: u64,
    /// Goes to the URL's own host and port, and never to where it redirects.
    pub(crate) authorization: Option<HeaderValue>,
    /// A form to post.
    pub(crate) form: Option<Zeroizing<String>>,
}

/// An answer, and where it came from.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Another host than that of the request gave the answer.
    pub(crate) elsewhere: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection, no TLS, or it broke.
    #[error("no answer")]
    Failed(#[source] reqwest::Error),
    /// The same on the host that a redirect named, while the section's certificates are the only ones trusted.
    #[error("no answer from {host}, to which the registry redirects; the section's ca-certs must cover that host too")]
    FailedElsewhere {
        /// The other host.
        host: String,
        /// What failed.
        source: reqwest::Error,
    },
    /// The head of the answer, or the rest of its body, does not come.
    #[error("the server stopped sending")]
    Stalled,
    /// More than ten redirects.
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    /// A redirect without a target, to plain HTTP, or with a user in its URL.
    #[error("a redirect to {0:?}, which is not followed: {1}")]
    Target(String, &'static str),
    /// The host that a redirect named wants a login.
    #[error("{0}, to which the registry redirects, asks for credentials; it gets none")]
    AskedElsewhere(String),
    /// A redirect that a rule of its kind of request forbids.
    #[error("a redirect is not followed")]
    Rule(#[source] Box<dyn Error + Send + Sync>),
}

impl TransportError {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        // A redirect's URL can be a key to what it names.
        Self::Failed(error.without_url())
    }

    /// Whether nothing came, rather than something that is not accepted.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::FailedElsewhere { .. } | Self::Stalled)
    }

    /// Whether there is no connection: the name has no address, nothing is reached there, or nobody listens. What TLS does not accept is
    /// an answer.
    pub(crate) fn is_without_connection(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        error.is_connect() && !with_causes(error).any(|error| error.is::<rustls::Error>())
    }

    /// Whether HTTPS failed before there was TLS: nobody listens, or what listens does not speak TLS. Behind a proxy it is the proxy that
    /// does not listen, which says nothing of the registry.
    pub(crate) fn is_before_tls(&self, proxied: bool) -> bool {
        let Self::Failed(error) = self else { return false };
        with_causes(error).any(|error| {
            let io = error.downcast_ref::<io::Error>();
            let nobody_listens = !proxied && io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            nobody_listens || matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
        })
    }
}

/// An error and all its causes.
fn with_causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An I/O error passes over what it wraps when it is asked for its source.
        let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
}

impl Transport {
    pub(crate) fn new(trust: &Trust, proxies: &Proxies) -> Result<Self, TransportError> {
        let proxies = proxies.clone();
        let proxy = Proxy::custom(move |url| proxies.for_url(url).map(|proxy| proxy.url().clone()));
        let client = Client::builder()
            .tls_backend_preconfigured(tls::configuration(trust)?)
            .proxy(proxy)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WAIT)
            .pool_idle_timeout(IDLE)
            .referer(false)
            .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(TransportError::new)?;
        Ok(Self {
            client,
            allows_plain_http: trust.allows_plain_http(),
            pins: matches!(trust, Trust::Pinned(_)),
        })
    }

    /// Sends a request and follows redirects, each of which `rule` must allow.
    pub(crate) async fn send<E>(&self, ask: &Ask<'_>, rule: impl Fn(&Url) -> Result<(), E>) -> Result<Answer, TransportError>
    where
        E: Error + Send + Sync + 'static,
    {
        let home = ask.url.origin();
        let mut url = ask.url.clone();
        let mut elsewhere = false;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.once(ask, &url, elsewhere).await?;
            if !is_redirect(response.status()) {
                if elsewhere && response.status() == StatusCode::UNAUTHORIZED {
                    return Err(TransportError::AskedElsewhere(host(&url)));
                }
                return Ok(Answer { response, elsewhere });
            }
            url = self.target(ask, &url, &response)?;
            rule(&url).map_err(|error| TransportError::Rule(Box::new(error)))?;
            // Once away from home, the way back was somebody else's choice too.
            elsewhere |= !is_home(&home, &url);
        }
        Err(TransportError::Redirects)
    }

    async fn once(&self, ask: &Ask<'_>, url: &Url, elsewhere: bool) -> Result<Response, TransportError> {
        let method = if ask.form.is_some() { Method::POST } else { Method::GET };
        // What is hashed and measured is the content itself.
        let mut request = self
            .client
            .request(method, url.clone())
            .header(ACCEPT, ask.accept)
            .header(ACCEPT_ENCODING, "identity");
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let Some(authorization) = ask.authorization.as_ref().filter(|_| !elsewhere) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(form) = &ask.form {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.as_bytes().to_vec());
        }
        let sent = tokio::time::timeout(ANSWER_WAIT, request.send())
            .await
            .map_err(|_| TransportError::Stalled)?;
        sent.map_err(|error| match elsewhere && self.pins && error.is_connect() {
            true => TransportError::FailedElsewhere {
                host: host(url),
                source: error.without_url(),
            },
            false => TransportError::new(error),
        })
    }

    /// Where a redirect leads.
    fn target(&self, ask: &Ask<'_>, from: &Url, response: &Response) -> Result<Url, TransportError> {
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let target = location.and_then(|location| from.join(location).ok());
        let Some(target) = target else {
            return Err(TransportError::Target(String::new(), "it is not a URL"));
        };
        let refused = |why| Err(TransportError::Target(host(&target), why));
        if ask.form.is_some() {
            return refused("a login is not sent on");
        }
        match target.scheme() {
            "https" => {}
            "http" if self.allows_plain_http => {}
            _ => return refused("it must be https"),
        }
        if !target.username().is_empty() || target.password().is_some() {
            return refused("it has a user in it");
        }
        Ok(target)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The same scheme, host and port.
fn is_home(home: &Origin, url: &Url) -> bool {
    *home == url.origin()
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().chars().take(100).collect()
}
