//! Why a pull failed: at which step, of what, and how.

use crate::access::MirrorError;
use crate::challenge::ChallengeError;
use crate::credentials::Uncarried;
use crate::realm::RealmError;
use crate::transport::TransportError;
use oci::{ChoiceError, Digest, ImageError};
use std::fmt;

/// What was done when a pull failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first request, which says whether there is a registry and what login it wants.
    Ping,
    /// The exchange of credentials for a token.
    Token,
    /// A manifest or an index, by tag or digest.
    Manifest(String),
    /// The config of an image.
    Config(Digest),
    /// A layer.
    Layer(Digest),
    /// The choice among what an index offers.
    Choice,
}

/// A pull that failed. The message names the step and the repository, its source the reason.
#[derive(Debug, thiserror::Error)]
#[error("{step} {repository}")]
pub struct PullError {
    /// What was done.
    pub step: Step,
    /// Registry and repository.
    pub repository: String,
    /// How it failed.
    #[source]
    pub cause: Box<Cause>,
}

/// How a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A mirror that is none.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// An answer that is an error.
    #[error("the server answers {status}{}", said(.message))]
    Status {
        /// Status of the answer.
        status: u16,
        /// What the server says.
        message: Option<String>,
    },
    /// The login is refused. Nothing is tried without it.
    #[error("the server answers {status}{}; used: {used}", said(.message))]
    Refused {
        /// Status of the answer.
        status: u16,
        /// What the server says.
        message: Option<String>,
        /// Kind and source of the credentials.
        used: String,
    },
    /// A challenge without an answer.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// A token service that gets no credentials.
    #[error(transparent)]
    Realm(#[from] RealmError),
    /// Credentials that no header can carry.
    #[error(transparent)]
    Uncarried(#[from] Uncarried),
    /// An answer of a token service that holds no token.
    #[error("the token service's answer has no token")]
    NoToken,
    /// A document that is longer than such documents are.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    /// A size other than what the image says.
    #[error("it has {found} bytes, and the image says {expected}")]
    Size {
        /// What the image says.
        expected: u64,
        /// What the server has.
        found: u64,
    },
    /// More bytes than what the image says.
    #[error("it does not end after the {0} bytes that the image says")]
    Endless(u64),
    /// Fewer bytes than what the image says, also when asked for the rest.
    #[error("it ends after {found} of {expected} bytes")]
    Truncated {
        /// What the image says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Other content than what was asked for.
    #[error("the content has the digest {found} and not {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// An answer with another part than the one that was asked for.
    #[error("the server sends another part of it than asked for")]
    Part,
    /// A layer that is in no registry, or in a form that no guest can use.
    #[error("its media type {0:?} is none of a layer that can be pulled")]
    MediaType(String),
    /// A layer whose size the manifest does not say.
    #[error("the image does not say its size")]
    NoSize,
    /// No image for the guest, or too many documents on the way to it.
    #[error("no image can be chosen")]
    Choice(#[source] ChoiceError),
    /// Documents that are too long altogether.
    #[error("the documents that may be the guest's image have more than {0} bytes together")]
    Search(u64),
    /// The manifest and the config make no image.
    #[error("the image cannot be used")]
    Image(#[source] ImageError),
    /// It took longer than such a blob may take.
    #[error("it takes longer than {0} s")]
    TooSlow(u64),
    /// The stream failed before, and ends with that.
    #[error("the stream has failed before")]
    Failed,
}

impl Cause {
    /// Whether the registry may be there a little later: no connection to it is made, or what stands before it says that it is not there.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_without_connection(),
            Self::Status { status, .. } => matches!(status, 502..=504),
            _ => false,
        }
    }

    /// Whether the same request may succeed a little later: there is no answer, or the server has a fault of its own.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Transport(error) => error.may_pass(),
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping => f.write_str("cannot reach the registry of"),
            Self::Token => f.write_str("cannot get a token for"),
            Self::Manifest(reference) => write!(f, "cannot get manifest {reference} of"),
            Self::Config(digest) => write!(f, "cannot get config {digest} of"),
            Self::Layer(digest) => write!(f, "cannot get layer {digest} of"),
            Self::Choice => f.write_str("cannot choose an image of"),
        }
    }
}

fn said(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
}
