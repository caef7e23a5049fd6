//! Vectors of a token service: each is asked over HTTP of the service itself, which has a database with nothing else in it.

use super::covers;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use registry_rules::{PathPattern, ProjectId, ProjectPath, Role, Rule, Visibility};
use registry_store::{Holder, NewToken, PasswordHash, Store, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use token_service::{Config, KeyAlgorithm, hash_password, new_key};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// Who creates what a vector needs.
const BY: &str = "conformance";
const SERVICE: &str = "container_registry";
const USER: &str = "someone";
const PASSWORD: &str = "a password of a vector";
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long tokens of a vector live, in seconds.
const LIFETIME: i64 = 3600;

/// A vector: a request with its answer, or a rule with its faults.
#[derive(Deserialize)]
#[serde(tag = "category", rename_all = "kebab-case")]
pub enum Case {
    Protection(Box<Request>),
    RuleValidation(Wanted),
}

/// What is there, who asks for what, and what the answer must be.
#[derive(Deserialize)]
pub struct Request {
    id: String,
    projects: Vec<Project>,
    principal: Principal,
    scopes: Vec<String>,
    expect: Value,
}

#[derive(Deserialize)]
struct Project {
    path: String,
    visibility: String,
    rules: Vec<Fields>,
}

#[derive(Deserialize)]
struct Fields {
    pattern: String,
    push: Option<String>,
    delete: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Principal {
    Anonymous,
    BadCredentials,
    User {
        level: String,
        #[serde(default)]
        admin: bool,
    },
    DeployToken {
        scopes: Vec<String>,
    },
    CiJob {
        level: String,
        project: String,
    },
}

/// A rule that somebody wants.
#[derive(Deserialize)]
pub struct Wanted {
    id: String,
    project: String,
    rule: WantedFields,
    expect: Faults,
}

#[derive(Deserialize)]
struct WantedFields {
    #[serde(default)]
    repository_path_pattern: String,
    minimum_access_level_for_push: Option<String>,
    minimum_access_level_for_delete: Option<String>,
}

#[derive(Deserialize)]
struct Faults {
    valid: bool,
    errors: Vec<String>,
}

/// A login and its password.
type Credentials = Option<(String, String)>;

/// Where vectors are replayed: a directory for databases and the service's key.
pub struct Bench {
    runtime: Runtime,
    directory: TempDir,
    password: PasswordHash,
}

impl Case {
    /// The vector's name.
    pub fn id(&self) -> &str {
        match self {
            Self::Protection(request) => &request.id,
            Self::RuleValidation(wanted) => &wanted.id,
        }
    }
}

impl Bench {
    /// Makes a key.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for databases")?;
        let path = |name| directory.path().join(name);
        new_key(KeyAlgorithm::Es256, &path("key.pem"), &path("certificate.pem"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let password = hash_password(PASSWORD)?;
        Ok(Self {
            runtime,
            directory,
            password,
        })
    }

    /// Replays a vector; the inner error is a difference.
    pub fn replay(&self, case: &Case) -> Result<Result<(), String>> {
        match case {
            Case::Protection(request) => {
                let directory = tempfile::tempdir_in(self.directory.path()).context("cannot make a directory for a database")?;
                let found = self.answer(request, directory.path());
                found
                    .map(|found| covers(&request.expect, &found, ""))
                    .with_context(|| request.id.clone())
            }
            Case::RuleValidation(wanted) => faults(wanted).with_context(|| wanted.id.clone()),
        }
    }

    /// The service's answer, in the vectors' form.
    fn answer(&self, request: &Request, directory: &Path) -> Result<Value> {
        let url = format!("sqlite:{}", directory.join("registry.db").display());
        let key = |name: &str| self.directory.path().join(name).display().to_string();
        // Debug of a path's text is a basic string of TOML.
        let config = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"casemate\"\nservices = [{SERVICE:?}]\ndatabase = {url:?}\n[[keys]]\nkey = {:?}\ncertificate = {:?}\n",
            key("key.pem"),
            key("certificate.pem")
        );
        let config = Config::parse(&config)?;
        let credentials = self.runtime.block_on(prepare(request, &url, &self.password))?;
        let (ready, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = token_service::serve(
            config,
            move |address| {
                let _ = ready.send(address);
            },
            async move { drop(stopped.await) },
        );
        let scopes = request.scopes.clone();
        let asking = async move {
            // Without an address the service's own error says why.
            let Ok(address) = address.await else { return Ok(Value::Null) };
            let answer = spawn_blocking(move || ask(address, &credentials, &scopes)).await;
            drop(stop);
            answer.context("the client has panicked")?
        };
        let (served, answer) = self.runtime.block_on(async { tokio::join!(service, asking) });
        served.context("the service has failed")?;
        answer
    }
}

/// Creates what a vector says, and what its principal logs in with.
async fn prepare(request: &Request, url: &str, hash: &PasswordHash) -> Result<Credentials> {
    let store = Store::open(url).await?;
    let mut projects: BTreeMap<&str, ProjectId> = BTreeMap::new();
    for project in &request.projects {
        let visibility = match project.visibility.as_str() {
            "public" => Visibility::Public,
            "private" => Visibility::Private,
            other => bail!("{other:?} is no visibility"),
        };
        let id = store.create_project(BY, &project.path.parse()?, visibility).await?;
        projects.insert(&project.path, id);
        for rule in &project.rules {
            let level = |word: &Option<String>| word.as_deref().map(str::parse).transpose();
            let (push, delete) = (level(&rule.push)?, level(&rule.delete)?);
            store.import_rule(BY, id, &PathPattern::new(&rule.pattern), push, delete).await?;
        }
    }
    let user = |name: &str, secret: &str| Some((name.to_owned(), secret.to_owned()));
    let credentials = match &request.principal {
        Principal::Anonymous => None,
        Principal::BadCredentials => {
            store.create_user(BY, USER, Some(hash), false).await?;
            user(USER, "another password")
        }
        Principal::User { level, admin } => {
            let id = store.create_user(BY, USER, Some(hash), *admin).await?;
            join(&store, id, level, projects.values()).await?;
            user(USER, PASSWORD)
        }
        Principal::DeployToken { scopes } => {
            let has = |scope: &str| scopes.iter().any(|word| word == scope);
            let project = *projects.values().next().context("a deploy token without a project")?;
            let token = NewToken::Deploy {
                project,
                name: "vector".to_owned(),
                login: "deploy".to_owned(),
                read: has("read_registry"),
                write: has("write_registry"),
                expires: None,
            };
            user("deploy", store.create_token(BY, &token).await?.1.expose())
        }
        Principal::CiJob { level, project } => {
            let id = store.create_user(BY, USER, Some(hash), false).await?;
            join(&store, id, level, projects.values()).await?;
            let project = match projects.get(project.as_str()) {
                Some(project) => *project,
                None => store.create_project(BY, &project.parse()?, Visibility::Private).await?,
            };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            let expires = i64::try_from(now.as_secs())? + LIFETIME;
            let token = NewToken::Job {
                user: id,
                project,
                expires,
            };
            user("ci-token", store.create_token(BY, &token).await?.1.expose())
        }
    };
    store.close().await;
    Ok(credentials)
}

/// Gives a user a level in each project; `none` is none.
async fn join(store: &Store, user: UserId, level: &str, projects: impl Iterator<Item = &ProjectId>) -> Result<()> {
    if level == "none" {
        return Ok(());
    }
    let role: Role = level.parse()?;
    for project in projects {
        store.set_member(BY, Holder::Project(*project), user, Some(role)).await?;
    }
    Ok(())
}

/// Asks for a token: the status, and the error or what the token grants.
fn ask(address: SocketAddr, credentials: &Credentials, scopes: &[String]) -> Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // The service is on the loopback, whatever proxy the machine has.
        .proxy(None)
        .build()
        .into();
    let mut request = agent.get(format!("http://{address}/jwt/auth")).query("service", SERVICE);
    for scope in scopes {
        request = request.query("scope", scope);
    }
    if let Some((login, password)) = credentials {
        let basic = format!("Basic {}", STANDARD.encode(format!("{login}:{password}")));
        request = request.header("Authorization", basic);
    }
    let mut response = request.call().context("the service does not answer")?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec()?;
    let body: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
    if status != 200 {
        return Ok(json!({ "status": status, "error": body["errors"][0] }));
    }
    let token = body["token"].as_str().context("the answer has no token")?;
    let claims = token.split('.').nth(1).context("the token is no JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    Ok(json!({ "status": status, "access": claims["access"] }))
}

fn faults(wanted: &Wanted) -> Result<Result<(), String>> {
    let project: ProjectPath = wanted.project.parse()?;
    let rule = &wanted.rule;
    let (push, delete) = (&rule.minimum_access_level_for_push, &rule.minimum_access_level_for_delete);
    let found = Rule::check(&project, &rule.repository_path_pattern, push.as_deref(), delete.as_deref(), false);
    let found: Vec<&str> = found.into_iter().map(|fault| fault.code()).collect();
    Ok(match found == wanted.expect.errors && found.is_empty() == wanted.expect.valid {
        true => Ok(()),
        false => Err(format!("the faults are {found:?} instead of {:?}", wanted.expect.errors)),
    })
}
