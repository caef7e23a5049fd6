//! A running service with a database of its own, and the client that checks every answer against the description.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use registry_rules::{ProjectId, Role, Visibility};
use registry_store::{AuditFilter, AuditRecord, Holder, NewToken, RuleFields, Store, UserId};
use reqwest::{Client, Method};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;
use token_service::{Config, KeyAlgorithm, ServeError, hash_password, new_key, serve};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const SERVICE: &str = "container_registry";
/// As the registry of tests calls itself, and whom it believes.
pub const REGISTRY: &str = registry_testing::token::SERVICE;
pub const ISSUER: &str = registry_testing::token::ISSUER;
pub const PASSWORD: &str = "a password of tests";
/// Longest wait for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The description, as the source has it.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../../src/openapi.json")).unwrap());

pub struct Running {
    pub address: SocketAddr,
    pub store: Store,
    pub directory: TempDir,
    pub client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Running {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With more lines of configuration.
    pub async fn with(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("token.key"), directory.path().join("token.crt"));
        new_key(KeyAlgorithm::Es256, &key, &certificate).unwrap();
        Self::of(directory, extra).await
    }

    /// With the keys `token.key` and `token.crt` of a directory.
    pub async fn of(directory: TempDir, extra: &str) -> Self {
        // The only provider that is compiled in.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let database = format!("sqlite:{}", path("registry.db"));
        let config = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"{ISSUER}\"\nservices = [\"{SERVICE}\", \"other\", \"{REGISTRY}\"]\ndatabase = \"{database}\"\n{extra}\n\
             [[keys]]\nkey = \"{}\"\ncertificate = \"{}\"\n",
            path("token.key"),
            path("token.crt"),
        );
        let config = Config::parse(&config).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = oneshot::channel();
        let task = tokio::spawn(serve(config, move |address| ready.send(address).unwrap(), async move {
            _ = stopped.await
        }));
        let address = match address.await {
            Ok(address) => address,
            Err(_) => panic!("{:?}", task.await.unwrap()),
        };
        Self {
            address,
            store: Store::open(&database).await.unwrap(),
            directory,
            client: Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(),
            stop,
            task,
        }
    }

    /// Tells it to stop. The task ends when it has.
    pub fn stop(self) -> (JoinHandle<Result<(), ServeError>>, TempDir) {
        self.stop.send(()).unwrap();
        (self.task, self.directory)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A user with [`PASSWORD`].
    pub async fn user(&self, name: &str) -> UserId {
        let hash = hash_password(PASSWORD).unwrap();
        self.store.create_user("test", name, Some(&hash), false).await.unwrap()
    }

    pub async fn administrator(&self, name: &str) -> UserId {
        let user = self.user(name).await;
        self.store.set_administrator("test", user, true).await.unwrap();
        user
    }

    pub async fn member(&self, name: &str, project: ProjectId, role: Role) -> UserId {
        let user = self.user(name).await;
        self.store
            .set_member("test", Holder::Project(project), user, Some(role))
            .await
            .unwrap();
        user
    }

    pub async fn project(&self, path: &str, visibility: Visibility) -> ProjectId {
        self.store.create_project("test", &path.parse().unwrap(), visibility).await.unwrap()
    }

    pub async fn rule(&self, project: ProjectId, pattern: &str, push: Option<&str>, delete: Option<&str>) -> i64 {
        let fields = RuleFields {
            pattern: pattern.to_owned(),
            push: push.map(str::to_owned),
            delete: delete.map(str::to_owned),
        };
        self.store.create_rule("test", project, &fields).await.unwrap().id
    }

    pub async fn token(&self, new: &NewToken) -> String {
        self.store.create_token("test", new).await.unwrap().1.expose().to_owned()
    }

    pub async fn audit(&self) -> Vec<AuditRecord> {
        self.store.audit(&AuditFilter::default()).await.unwrap()
    }

    /// Asks for a token of [`SERVICE`].
    pub async fn ask(&self, login: Option<(&str, &str)>, scopes: &[&str]) -> Answer {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", SERVICE);
        scopes.iter().for_each(|scope| _ = query.append_pair("scope", scope));
        let headers = login.map(|(name, secret)| ("authorization", basic(name, secret)));
        self.send(Method::GET, &format!("/jwt/auth?{}", query.finish()), headers.as_slice(), None)
            .await
    }

    /// The access of a granted answer, as `TYPE:NAME:ACTIONS`.
    pub async fn granted(&self, login: Option<(&str, &str)>, scopes: &[&str]) -> Vec<String> {
        let answer = self.ask(login, scopes).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        access(&answer)
    }

    /// Sends a request, and checks the answer against the description.
    pub async fn send(&self, method: Method, target: &str, headers: &[(&str, String)], body: Option<String>) -> Answer {
        let mut request = self.client.request(method.clone(), format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = Answer::read(request.send().await.unwrap()).await;
        answer.check(&method, target);
        answer
    }
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Self {
            json: serde_json::from_str(&text).unwrap_or_default(),
            status,
            headers,
            text,
        }
    }

    /// The error's code and text, as clients of registries read them.
    pub fn error(&self) -> (u16, &str, &str) {
        let error = &self.json["errors"][0];
        (self.status, error["code"].as_str().unwrap(), error["message"].as_str().unwrap())
    }

    fn check(&self, method: &Method, target: &str) {
        let path = target.split('?').next().unwrap();
        if self.status >= 400 {
            assert!(self.json.is_object(), "{method} {target}: {} {:?}", self.status, self.text);
        }
        let Some((name, item)) = described(path) else { return };
        let Some(operation) = item.get(method.as_str().to_lowercase()) else {
            return assert_eq!(self.status, 405, "{method} {target} is not described");
        };
        let described = operation["responses"].get(self.status.to_string());
        assert!(
            described.is_some(),
            "{method} {name}: {} is not described: {}",
            self.status,
            self.text
        );
        if name == "/metrics" || self.status == 204 {
            return;
        }
        assert_eq!(self.headers["content-type"], "application/json", "{method} {target}");
        assert_eq!(self.headers["cache-control"], "no-store", "{method} {target}");
        if self.status == 401 {
            assert!(self.headers["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
        }
    }
}

/// The description of a path.
pub fn described(path: &str) -> Option<(&str, &Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let fits = |name: &str| {
        let wanted: Vec<&str> = name.split('/').collect();
        wanted.len() == parts.len()
            && wanted
                .iter()
                .zip(&parts)
                .all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    paths.iter().find(|(name, _)| fits(name)).map(|(name, item)| (name.as_str(), item))
}

pub fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

pub fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub fn claims(answer: &Answer) -> Value {
    part(answer.json["token"].as_str().unwrap(), 1)
}

pub fn access(answer: &Answer) -> Vec<String> {
    let claims = claims(answer);
    let shown = |access: &Value| {
        let actions: Vec<&str> = access["actions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|action| action.as_str().unwrap())
            .collect();
        format!(
            "{}:{}:{}",
            access["type"].as_str().unwrap(),
            access["name"].as_str().unwrap(),
            actions.join(",")
        )
    };
    claims["access"].as_array().unwrap().iter().map(shown).collect()
}

/// Whether the certificate's key signed the token.
pub fn verifies(token: &str, certificate: &Path) -> bool {
    use rustls::pki_types::pem::PemObject as _;
    use x509_cert::der::Decode as _;
    let der = rustls::pki_types::CertificateDer::from_pem_file(certificate).unwrap();
    let certificate = x509_cert::Certificate::from_der(&der).unwrap();
    let public = certificate.tbs_certificate.subject_public_key_info.subject_public_key;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let verification: &dyn ring::signature::VerificationAlgorithm = match part(token, 0)["alg"].as_str().unwrap() {
        "ES256" => &ring::signature::ECDSA_P256_SHA256_FIXED,
        "RS256" => &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        other => panic!("{other}"),
    };
    let key = ring::signature::UnparsedPublicKey::new(verification, public.raw_bytes());
    key.verify(signed.as_bytes(), &signature).is_ok()
}

/// Waits until something is true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what} did not happen");
}

/// An hour from now, in seconds since 1970.
pub fn soon() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + 3600
}
