//! One repository of a registry: its requests, each with the login that the registry's challenges ask for.

mod login;

use crate::access::Access;
use crate::answer;
use crate::error::{Cause, PullError, Step};
use crate::realm::RealmRules;
use crate::transport::{Answer, Ask, Transport, TransportError};
use login::Logins;
use oci::Digest;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use std::convert::Infallible;
use tokio::sync::OnceCell;
use url::Url;

/// Largest index, manifest or config in bytes.
pub const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// Every type of index and manifest, OCI's and Docker's: registries hide a document of a type that is not asked for.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository. Its requests can run at the same time, and share connections and tokens.
#[derive(Debug)]
pub struct Repository {
    access: Access,
    name: String,
    transport: Transport,
    /// The registry or its mirror.
    home: Url,
    /// Where requests go, once it is known whether by TLS.
    origin: OnceCell<Url>,
    logins: Logins,
}

/// What a request is for.
pub(crate) struct Request<'a> {
    pub(crate) step: Step,
    /// Below `/v2/NAME/`.
    pub(crate) path: String,
    pub(crate) accept: &'a str,
    pub(crate) from: u64,
}

impl Repository {
    /// Prepares requests; none is sent.
    ///
    /// # Errors
    /// TLS cannot be set up, or the section's mirror is none.
    pub fn new(access: Access, name: &str) -> Result<Self, PullError> {
        let failed = |cause| PullError {
            step: Step::Ping,
            repository: format!("{}/{name}", access.registry()),
            cause: Box::new(cause),
        };
        let home = access.origin().map_err(|error| failed(error.into()))?;
        let transport = Transport::new(access.trust(), access.proxies()).map_err(|error| failed(error.into()))?;
        Ok(Self {
            transport,
            home,
            origin: OnceCell::new(),
            logins: Logins::new(name),
            name: name.to_owned(),
            access,
        })
    }

    /// How it is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Its name, `library/redis`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest or index of a digest. Its content is checked against the digest, and against its size if that is known.
    ///
    /// # Errors
    /// It cannot be had, or is another.
    pub async fn manifest(&self, digest: Digest, size: Option<u64>) -> Result<Vec<u8>, PullError> {
        let step = Step::Manifest(digest.to_string());
        let bytes = self.document(&step, format!("manifests/{digest}"), MANIFESTS, size).await?;
        self.check(step, digest, &bytes)?;
        Ok(bytes)
    }

    /// The manifest or index that a tag names now, and its digest.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn resolve(&self, tag: &str) -> Result<(Digest, Vec<u8>), PullError> {
        let step = Step::Manifest(tag.to_owned());
        let bytes = self.document(&step, format!("manifests/{tag}"), MANIFESTS, None).await?;
        Ok((Digest::of(&bytes), bytes))
    }

    /// The config of an image.
    ///
    /// # Errors
    /// It cannot be had, or is another.
    pub(crate) async fn config(&self, digest: Digest, size: Option<u64>) -> Result<Vec<u8>, PullError> {
        let step = Step::Config(digest);
        let bytes = self.document(&step, format!("blobs/{digest}"), "*/*", size).await?;
        self.check(step, digest, &bytes)?;
        Ok(bytes)
    }

    async fn document(&self, step: &Step, path: String, accept: &str, size: Option<u64>) -> Result<Vec<u8>, PullError> {
        let most = size.unwrap_or(DOCUMENT_MAX_BYTES);
        if most > DOCUMENT_MAX_BYTES {
            return Err(self.failed(step.clone(), Cause::TooLong(DOCUMENT_MAX_BYTES)));
        }
        let request = Request {
            step: step.clone(),
            path,
            accept,
            from: 0,
        };
        let mut answer = self.ok(&request).await?;
        let failed = |cause| self.failed(step.clone(), cause);
        let body = answer::body(&mut answer.response, most as usize)
            .await
            .map_err(|error| failed(error.into()))?;
        let bytes = body.ok_or_else(|| failed(size.map_or(Cause::TooLong(most), Cause::Endless)))?;
        match size {
            Some(expected) if expected != bytes.len() as u64 => Err(failed(Cause::Size {
                expected,
                found: bytes.len() as u64,
            })),
            _ => Ok(bytes),
        }
    }

    fn check(&self, step: Step, expected: Digest, bytes: &[u8]) -> Result<(), PullError> {
        let found = Digest::of(bytes);
        match found == expected {
            true => Ok(()),
            false => Err(self.failed(step, Cause::Digest { expected, found })),
        }
    }

    /// A request whose answer is 200.
    async fn ok(&self, request: &Request<'_>) -> Result<Answer, PullError> {
        let answer = self.get(request).await?;
        match answer.response.status() {
            StatusCode::OK => Ok(answer),
            status => Err(self.status(request.step.clone(), status, answer).await),
        }
    }

    /// Sends a request with the login that the registry asks for. A refused login is renewed once, never left out.
    pub(crate) async fn get(&self, request: &Request<'_>) -> Result<Answer, PullError> {
        let origin = self.origin.get_or_try_init(|| self.ping()).await?;
        let login = self.logins.current(self, origin).await?;
        let answer = self.send(origin, request, login.header.clone()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(renewed) = self.logins.renewed(self, origin, &login, &answer, &request.step).await? else {
            return Ok(answer);
        };
        self.send(origin, request, renewed.header).await
    }

    async fn send(&self, origin: &Url, request: &Request<'_>, authorization: Option<HeaderValue>) -> Result<Answer, PullError> {
        let ask = Ask {
            url: self.url(origin, &format!("{}/{}", self.name, request.path)),
            accept: request.accept,
            from: request.from,
            authorization,
            form: None,
        };
        let sent = self.transport.send(&ask, anywhere).await;
        sent.map_err(|error| self.failed(request.step.clone(), error.into()))
    }

    /// Asks whether there is a registry, and what it wants; by plain HTTP only where nothing speaks TLS and the section allows it.
    async fn ping(&self) -> Result<Url, PullError> {
        let mut origin = self.home.clone();
        let failed = |cause| self.failed(Step::Ping, cause);
        let first = self.greet(&origin).await;
        let plain = self.access.trust().allows_plain_http() && origin.scheme() == "https";
        let proxied = self.access.proxies().for_url(&origin).is_some();
        let answer = match first {
            Err(error) if plain && error.is_before_tls(proxied) => {
                let port = origin.port();
                origin.set_scheme("http").map_err(|()| failed(error.into()))?;
                // A URL forgets a port that is the default of its scheme.
                let kept = origin.set_port(port);
                debug_assert!(kept.is_ok(), "a URL with a host takes a port");
                self.greet(&origin).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| failed(error.into()))?;
        match answer.response.status() {
            StatusCode::OK => Ok(origin),
            StatusCode::UNAUTHORIZED => {
                self.logins.challenged(&answer).await.map_err(|error| failed(error.into()))?;
                Ok(origin)
            }
            status => Err(self.status(Step::Ping, status, answer).await),
        }
    }

    async fn greet(&self, origin: &Url) -> Result<Answer, TransportError> {
        let ask = Ask {
            url: self.url(origin, ""),
            accept: "*/*",
            from: 0,
            authorization: None,
            form: None,
        };
        self.transport.send(&ask, anywhere).await
    }

    /// A URL below `/v2/`. A mirror's own path and query stay, and it is told which registry is meant.
    fn url(&self, origin: &Url, path: &str) -> Url {
        let mut url = origin.clone();
        url.set_path(&format!("{}/v2/{path}", origin.path().trim_end_matches('/')));
        if let Some(registry) = self.access.mirrored() {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        url
    }

    /// The rules for token services of this registry.
    fn realm_rules(&self, origin: &Url) -> RealmRules {
        RealmRules::new(origin, self.access.trust().allows_plain_http())
    }

    /// An answer that is an error.
    pub(crate) async fn status(&self, step: Step, status: StatusCode, mut answer: Answer) -> PullError {
        let secrets = self.logins.secrets(&self.access).await;
        let message = answer::message(&mut answer.response, &secrets).await;
        let status_code = status.as_u16();
        let cause = match status {
            // What another host refuses has nothing to do with our login.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !answer.elsewhere => Cause::Refused {
                status: status_code,
                message,
                used: self.logins.used(&self.access).await,
            },
            _ => Cause::Status {
                status: status_code,
                message,
            },
        };
        self.failed(step, cause)
    }

    /// An error with its step.
    pub(crate) fn failed(&self, step: Step, cause: Cause) -> PullError {
        PullError {
            step,
            repository: format!("{}/{}", self.access.registry(), self.name),
            cause: Box::new(cause),
        }
    }
}

/// Registries redirect to wherever their storage is; the content is checked by its digest.
fn anywhere(_: &Url) -> Result<(), Infallible> {
    Ok(())
}
