//! Tokens: who they stand for, what they may do, and the digest under which the database knows them.

use crate::{NewSecret, StoreError, UserId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry_rules::ProjectId;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The number of a token in the database; never given to a second one.
pub type TokenId = i64;

/// The SHA-256 of a token's whole text. Tokens are 256 random bits, so that a fast hash without salt is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

/// Who a token stands for, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A user's own, which logs in with the user's name.
    Personal {
        /// The user.
        user: UserId,
        /// Reads from registries.
        read: bool,
        /// Writes to registries.
        write: bool,
        /// Uses the API.
        api: bool,
    },
    /// A project's, with a login of its own.
    Deploy {
        /// The project.
        project: ProjectId,
        /// What it logs in with.
        login: String,
        /// `read_registry`.
        read: bool,
        /// `write_registry`.
        write: bool,
    },
    /// A CI job's, which logs in as one of [`crate::JOB_LOGINS`].
    Job {
        /// The user who started the job.
        user: UserId,
        /// The project whose pipeline runs it.
        project: ProjectId,
    },
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its number.
    pub id: TokenId,
    /// What it is.
    pub kind: TokenKind,
    /// What its owner calls it; empty for jobs.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it ends, the same; never where absent.
    pub expires: Option<i64>,
}

/// A token that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewToken {
    /// See [`TokenKind::Personal`].
    Personal {
        /// The user.
        user: UserId,
        /// What its owner calls it.
        name: String,
        /// Reads from registries.
        read: bool,
        /// Writes to registries.
        write: bool,
        /// Uses the API.
        api: bool,
        /// Its end, in seconds since 1970.
        expires: Option<i64>,
    },
    /// See [`TokenKind::Deploy`].
    Deploy {
        /// The project.
        project: ProjectId,
        /// What its owner calls it.
        name: String,
        /// What it logs in with.
        login: String,
        /// `read_registry`.
        read: bool,
        /// `write_registry`.
        write: bool,
        /// Its end, in seconds since 1970.
        expires: Option<i64>,
    },
    /// See [`TokenKind::Job`].
    Job {
        /// The user who started the job.
        user: UserId,
        /// The project whose pipeline runs it.
        project: ProjectId,
        /// Its end, in seconds since 1970.
        expires: i64,
    },
}

impl TokenDigest {
    /// The digest of a token as a client sends it.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    pub(crate) fn hex(&self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl TokenKind {
    /// `personal`, `deploy` or `job`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Personal { .. } => "personal",
            Self::Deploy { .. } => "deploy",
            Self::Job { .. } => "job",
        }
    }

    /// The user behind it.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Personal { user, .. } | Self::Job { user, .. } => Some(*user),
            Self::Deploy { .. } => None,
        }
    }

    /// The project that it belongs to.
    pub fn project(&self) -> Option<ProjectId> {
        match self {
            Self::Deploy { project, .. } | Self::Job { project, .. } => Some(*project),
            Self::Personal { .. } => None,
        }
    }

    fn prefix(&self) -> &'static str {
        match self {
            Self::Personal { .. } => "cmp_",
            Self::Deploy { .. } => "cmd_",
            Self::Job { .. } => "cmj_",
        }
    }

    /// A new token's text: the prefix and 32 random bytes in base64url.
    pub(crate) fn new_secret(&self) -> Result<NewSecret, StoreError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| StoreError::unavailable("the system gives no random numbers"))?;
        let random = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        Ok(NewSecret::new([self.prefix(), &random].concat()))
    }
}

impl TokenRecord {
    /// Whether it has not ended yet; `now` in seconds since 1970.
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_are_long_and_stay_hidden() {
        let kind = TokenKind::Job { user: 1, project: 2 };
        let (one, other) = (kind.new_secret().unwrap(), kind.new_secret().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert!(one.expose().starts_with("cmj_") && one.expose().len() == 4 + 43);
        assert!(!format!("{one:?}").contains(&one.expose()[4..]));
    }

    #[test]
    fn digests_survive_their_text() {
        let digest = TokenDigest::of("cmp_x");
        assert_eq!(TokenDigest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(TokenDigest::from_hex("00"), None);
    }
}
