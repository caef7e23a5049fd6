//! Logins: credentials become a caller, or are wrong.

use crate::clock::Now;
use crate::credentials::Credentials;
use crate::passwords::Busy;
use crate::peer::Peer;
use crate::service::Service;
use crate::throttle::Attempt;
use registry_rules::{DeployScopes, Principal, ProjectId};
use registry_store::{JOB_LOGINS, Snapshot, StoreError, TokenDigest, TokenKind, TokenRecord, User, UserId, UserRoles};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// Prefixes of every kind of token.
pub(crate) const TOKEN_PREFIXES: [&str; 3] = ["cmp_", "cmd_", "cmj_"];

/// Who sends a request, by credentials that were right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name that tokens and the audit trail carry; empty for nobody.
    pub(crate) name: String,
    pub(crate) kind: CallerKind,
}

/// The kinds of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallerKind {
    Anonymous,
    User {
        id: UserId,
        administrator: bool,
        blocked: bool,
        /// What the credentials leave of the registry.
        limits: DeployScopes,
        /// Whether they may use the REST API.
        api: bool,
    },
    Job {
        user: UserId,
        administrator: bool,
        project: ProjectId,
        /// Its user is blocked.
        blocked: bool,
    },
    Deploy {
        project: ProjectId,
        scopes: DeployScopes,
    },
}

/// Why there is no caller.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// The credentials are wrong. The name, where it is one that exists.
    Denied(Option<String>),
    /// Too many were wrong before.
    Throttled,
    /// Too many wait.
    Busy,
    /// The database does not answer.
    Store(StoreError),
}

impl From<StoreError> for LoginError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Busy> for LoginError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl Caller {
    pub(crate) fn anonymous() -> Self {
        Self {
            name: String::new(),
            kind: CallerKind::Anonymous,
        }
    }

    /// The caller as the rules see it; `roles` are of [`Caller::user`].
    pub(crate) fn principal<'a>(&self, roles: &'a UserRoles<'a>) -> Principal<'a> {
        match &self.kind {
            CallerKind::Anonymous => Principal::Anonymous,
            CallerKind::User { blocked: true, .. } | CallerKind::Job { blocked: true, .. } => Principal::Powerless,
            CallerKind::User { administrator, limits, .. } => Principal::User {
                roles,
                administrator: *administrator,
                limits: *limits,
            },
            CallerKind::Job {
                administrator, project, ..
            } => Principal::Job {
                roles,
                administrator: *administrator,
                project: *project,
            },
            CallerKind::Deploy { project, scopes } => Principal::DeployToken {
                project: *project,
                scopes: *scopes,
            },
        }
    }

    /// The user behind it. Nobody's number is 0.
    pub(crate) fn user(&self) -> UserId {
        match self.kind {
            CallerKind::User { id, .. } => id,
            CallerKind::Job { user, .. } => user,
            CallerKind::Anonymous | CallerKind::Deploy { .. } => 0,
        }
    }

    /// A user, with what the credentials leave of the registry and whether they may use the API.
    pub(crate) fn of_user(user: &User, limits: DeployScopes, api: bool) -> Self {
        Self {
            name: user.name.clone(),
            kind: CallerKind::User {
                id: user.id,
                administrator: user.administrator,
                blocked: user.blocked,
                limits,
                api,
            },
        }
    }

    fn of_token(snapshot: &Snapshot, token: &TokenRecord) -> Option<Self> {
        match &token.kind {
            TokenKind::Personal {
                user, read, write, api, ..
            } => {
                let limits = DeployScopes {
                    read: *read,
                    write: *write,
                };
                Some(Self::of_user(snapshot.user_by_id(*user)?, limits, *api))
            }
            TokenKind::Job { user, project } => {
                let user = snapshot.user_by_id(*user)?;
                Some(Self {
                    name: user.name.clone(),
                    kind: CallerKind::Job {
                        user: user.id,
                        administrator: user.administrator,
                        project: *project,
                        blocked: user.blocked,
                    },
                })
            }
            TokenKind::Deploy {
                project,
                login,
                read,
                write,
            } => Some(Self {
                name: login.clone(),
                kind: CallerKind::Deploy {
                    project: *project,
                    scopes: DeployScopes {
                        read: *read,
                        write: *write,
                    },
                },
            }),
        }
    }

    /// Whether a token of this caller logs in by `name`.
    fn answers_to(&self, name: &str) -> bool {
        match self.kind {
            CallerKind::Job { .. } => JOB_LOGINS.contains(&name),
            _ => self.name == name,
        }
    }
}

impl Service {
    /// Who sends these credentials, with the state of the database by which that was found out.
    ///
    /// # Errors
    /// [`LoginError`]. A failure is counted against the address and, where a password was tried, against the account.
    pub(crate) async fn login(&self, credentials: &Credentials, peer: Peer, now: Now) -> Result<(Caller, Arc<Snapshot>), LoginError> {
        if *credentials == Credentials::None {
            return Ok((Caller::anonymous(), self.store.current().await?));
        }
        let snapshot = self.store.current().await?;
        // Nobody guesses a token, so the failures of others behind the same address do not stop one that is right.
        if let Some(caller) = by_token(&snapshot, credentials, now) {
            return Ok((caller, snapshot));
        }
        if self.throttle.refuses_address(peer.0, Instant::now()) {
            self.metrics.throttled();
            return Err(LoginError::Throttled);
        }
        let (name, secret) = match credentials {
            Credentials::Login { name, secret } => (Some(name.as_str()), secret),
            Credentials::Token(secret) => (None, secret),
            Credentials::None | Credentials::Malformed => return Err(self.denied(peer, None)),
        };
        match name {
            // No password was tried, so the account stays open to its owner.
            _ if is_token(secret) => Err(self.denied(peer, None)),
            Some(name) => self.password_login(name, secret, peer, snapshot).await,
            None => Err(self.denied(peer, None)),
        }
    }

    async fn password_login(
        &self,
        name: &str,
        secret: &Zeroizing<String>,
        peer: Peer,
        snapshot: Arc<Snapshot>,
    ) -> Result<(Caller, Arc<Snapshot>), LoginError> {
        if self.throttle.refuses_account(name, Instant::now()) {
            self.metrics.throttled();
            return Err(LoginError::Throttled);
        }
        let hash = snapshot.user(name).and_then(|user| user.password.clone());
        let attempt = Attempt::new(&self.throttle, peer.0, name);
        let right = self.passwords.verify(secret.clone(), hash.clone()).await;
        attempt.ends();
        if !right? {
            return Err(self.denied(peer, Some(name)).known(&snapshot));
        }
        // Checking took its time: the password may be another one by now, or the user blocked.
        let snapshot = self.store.current().await?;
        let Some(user) = snapshot.user(name).filter(|user| user.password == hash) else {
            return Err(self.denied(peer, Some(name)).known(&snapshot));
        };
        self.throttle.succeeded(name, Instant::now());
        let whole = DeployScopes { read: true, write: true };
        let caller = Caller::of_user(user, whole, true);
        Ok((caller, snapshot))
    }

    fn denied(&self, peer: Peer, account: Option<&str>) -> LoginError {
        self.metrics.login_failed();
        self.throttle.failed(peer.0, account, Instant::now());
        LoginError::Denied(account.map(str::to_owned))
    }
}

fn is_token(secret: &str) -> bool {
    TOKEN_PREFIXES.iter().any(|prefix| secret.starts_with(prefix))
}

/// The caller whose valid token this is, with the name that belongs to it.
fn by_token(snapshot: &Snapshot, credentials: &Credentials, now: Now) -> Option<Caller> {
    let (name, secret) = match credentials {
        Credentials::Login { name, secret } => (Some(name.as_str()), secret),
        Credentials::Token(secret) => (None, secret),
        Credentials::None | Credentials::Malformed => return None,
    };
    let token = is_token(secret).then(|| snapshot.token(&TokenDigest::of(secret)))??;
    let caller = token.is_valid_at(now.seconds()).then(|| Caller::of_token(snapshot, token))??;
    name.is_none_or(|name| caller.answers_to(name)).then_some(caller)
}

impl LoginError {
    /// Without a name that nobody has: it may be a password in the wrong field.
    fn known(self, snapshot: &Snapshot) -> Self {
        match self {
            Self::Denied(name) => Self::Denied(name.filter(|name| snapshot.user(name).is_some())),
            other => other,
        }
    }
}
