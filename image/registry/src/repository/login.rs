//! The login of a repository's requests: what the last challenge asked for, and the token that answers it.

use super::Repository;
use crate::access::Access;
use crate::challenge::{Bearer, Challenge, ChallengeError};
use crate::credentials::{Login, header};
use crate::error::{PullError, Step};
use crate::secret::Secret;
use crate::token::{Exchange, Token};
use crate::transport::Answer;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

/// Most scopes of one token.
const SCOPES_MAX: usize = 8;

/// What is known of a registry's wishes. Requests that run at the same time wait for one token.
#[derive(Debug)]
pub(super) struct Logins {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    challenge: Option<Challenge>,
    scopes: Vec<String>,
    token: Option<Token>,
    refresh: Option<Secret>,
    /// Counts changes, so that of several refused requests only the first renews the login.
    version: u64,
}

/// The login of one request.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) header: Option<HeaderValue>,
    version: u64,
}

impl Logins {
    pub(super) fn new(repository: &str) -> Self {
        Self {
            state: Mutex::new(State {
                challenge: None,
                scopes: vec![format!("repository:{repository}:pull")],
                token: None,
                refresh: None,
                version: 0,
            }),
        }
    }

    /// Takes the challenge of the first answer.
    pub(super) async fn challenged(&self, answer: &Answer) -> Result<(), ChallengeError> {
        let challenge = Challenge::of(answer.response.headers())?;
        self.state.lock().await.challenge = Some(challenge);
        Ok(())
    }

    /// The login that the registry wants, as far as it has said it.
    pub(super) async fn current(&self, repository: &Repository, origin: &Url) -> Result<Current, PullError> {
        let mut state = self.state.lock().await;
        state.login(repository, origin, &Step::Token).await
    }

    /// Another login for a request that was refused; `None` if there is none, so that the refusal stands.
    pub(super) async fn renewed(
        &self,
        repository: &Repository,
        origin: &Url,
        refused: &Current,
        answer: &Answer,
        step: &Step,
    ) -> Result<Option<Current>, PullError> {
        let mut state = self.state.lock().await;
        if state.version != refused.version {
            return state.login(repository, origin, step).await.map(Some);
        }
        let challenge = Challenge::of(answer.response.headers()).map_err(|error| repository.failed(step.clone(), error.into()))?;
        match &challenge {
            // The same question has the same answer.
            Challenge::Basic if matches!(state.challenge, Some(Challenge::Basic)) => return Ok(None),
            Challenge::Bearer(_) if matches!(repository.access().credentials().for_bearer(), Login::RegistryToken(_)) => return Ok(None),
            Challenge::Basic => {}
            Challenge::Bearer(bearer) => state.ask_for(bearer),
        }
        state.challenge = Some(challenge);
        state.token = None;
        state.version += 1;
        let login = state.login(repository, origin, step).await?;
        Ok(login.header.is_some().then_some(login))
    }

    /// Kind and source of the credentials, for a refusal.
    pub(super) async fn used(&self, access: &Access) -> String {
        let state = self.state.lock().await;
        let login = match state.challenge {
            Some(Challenge::Bearer(_)) => access.credentials().for_bearer(),
            _ => access.credentials().for_basic(),
        };
        match login {
            Login::Anonymous => format!("no credentials, {}", access.source()),
            login => format!("{} credentials, {}", login.kind(), access.source()),
        }
    }

    /// Every text that no message may show.
    pub(super) async fn secrets(&self, access: &Access) -> Vec<Zeroizing<String>> {
        self.state.lock().await.secrets(access)
    }
}

impl State {
    fn secrets(&self, access: &Access) -> Vec<Zeroizing<String>> {
        let own = [self.token.as_ref().map(|token| &token.secret), self.refresh.as_ref()];
        let own = own.into_iter().flatten().map(|secret| Zeroizing::new(secret.expose().to_owned()));
        access.secrets().into_iter().chain(own).collect()
    }

    /// Puts the scope of a challenge first.
    fn ask_for(&mut self, bearer: &Bearer) {
        let Some(scope) = &bearer.scope else { return };
        self.scopes.retain(|known| known != scope);
        self.scopes.insert(0, scope.clone());
        self.scopes.truncate(SCOPES_MAX);
    }

    async fn login(&mut self, repository: &Repository, origin: &Url, step: &Step) -> Result<Current, PullError> {
        let credentials = repository.access().credentials();
        let plain = |login: Login<'_>| login.authorization().map_err(|error| repository.failed(step.clone(), error.into()));
        let header = match &self.challenge {
            None | Some(Challenge::Basic) => plain(credentials.for_basic())?,
            Some(Challenge::Bearer(bearer)) => match credentials.for_bearer() {
                login @ Login::RegistryToken(_) => plain(login)?,
                _ => {
                    let bearer = bearer.clone();
                    Some(self.bearer(repository, origin, &bearer).await?)
                }
            },
        };
        Ok(Current {
            header,
            version: self.version,
        })
    }

    /// The token, a new one if the last one ends.
    async fn bearer(&mut self, repository: &Repository, origin: &Url, bearer: &Bearer) -> Result<HeaderValue, PullError> {
        if self.token.as_ref().is_none_or(|token| !token.is_fresh()) {
            let access = repository.access();
            let exchange = Exchange {
                transport: &repository.transport,
                rules: &repository.realm_rules(origin),
                bearer,
                scopes: &self.scopes,
                credentials: access.credentials(),
                refresh: self.refresh.as_ref(),
                source: access.source(),
                secrets: &self.secrets(access),
            };
            let granted = exchange.run().await.map_err(|cause| repository.failed(Step::Token, cause))?;
            self.token = Some(granted.token);
            self.refresh = granted.refresh.or(self.refresh.take());
            self.version += 1;
        }
        let token = self.token.as_ref().map_or("", |token| token.secret.expose());
        header("Bearer", token).map_err(|error| repository.failed(Step::Token, error.into()))
    }
}
