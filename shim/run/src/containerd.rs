//! A client of containerd: one connection, one namespace, and the lease that keeps what is being made.

mod content;
mod objects;
mod snapshots;
mod tasks;

pub use tasks::Stdio;

use std::error::Error as _;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Timeout of calls that do no work.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The gRPC headers that carry the namespace and the lease.
const NAMESPACE_HEADER: &str = "containerd-namespace";
const LEASE_HEADER: &str = "containerd-lease";

/// Why a request to containerd failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// containerd's socket is not reachable.
    #[error("containerd does not answer at {address}: start it (systemctl start containerd), or name its socket with --address")]
    Connect {
        /// The socket.
        address: String,
        /// The cause.
        source: tonic::transport::Error,
    },
    /// Not a valid header value.
    #[error("{0:?} is not a namespace")]
    Namespace(String),
    /// A call failed.
    #[error("containerd cannot {doing}: {}", status.message())]
    Call {
        /// The request.
        doing: String,
        /// containerd's reply.
        status: Box<Status>,
    },
    /// A call was not answered.
    #[error("containerd does not {0}: it has not answered for long enough; look into its log")]
    Hangs(String),
    /// A reply without its content.
    #[error("containerd's reply is empty: {0}")]
    Empty(String),
    /// A document larger than any image needs.
    #[error("document {0} is longer than {max} bytes", max = oci::limits::DOCUMENT_MAX_BYTES)]
    Long(oci::Digest),
    /// What is to be written to the content store cannot be read.
    #[error("cannot read {0}")]
    Source(oci::Digest, #[source] std::io::Error),
    /// A part of this program panicked.
    #[error("cannot read {0}: the reader failed")]
    Panicked(oci::Digest),
}

impl ContainerdError {
    /// containerd's code, if it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the connection broke or could not be made: containerd has ended, and may be starting again.
    pub fn is_away(&self) -> bool {
        match self {
            // A call that is under way then ends with a code of tonic's own and the transport's error as its source. What containerd
            // answers has no source.
            Self::Call { status, .. } => status.code() == Code::Unavailable || status.source().is_some(),
            Self::Connect { .. } => true,
            _ => false,
        }
    }
}

/// A connection to containerd.
#[derive(Clone)]
pub struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Containerd {
    /// Connects to the socket at `address`.
    pub async fn connect(address: &str, namespace: &str) -> Result<Self, ContainerdError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let channel = containerd_client::connect(path).await.map_err(|source| ContainerdError::Connect {
            address: address.to_owned(),
            source,
        })?;
        let parsed = namespace.parse().ok().filter(|_| !namespace.is_empty());
        Ok(Self {
            channel,
            namespace: parsed.ok_or_else(|| ContainerdError::Namespace(namespace.to_owned()))?,
            lease: None,
        })
    }

    /// The same connection, on which everything that is made belongs to a lease.
    pub fn under_lease(self, id: &str) -> Self {
        Self {
            lease: id.parse().ok(),
            ..self
        }
    }

    fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request that may take as long as it does.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert(LEASE_HEADER, lease.clone());
        }
        request
    }

    /// A request that containerd answers at once.
    fn unary<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(TIMEOUT);
        request
    }
}

fn failed(doing: impl Into<String>) -> impl FnOnce(Status) -> ContainerdError {
    let doing = doing.into();
    move |status| ContainerdError::Call {
        doing,
        status: Box::new(status),
    }
}

/// The answer, or `None` if containerd has no such thing.
fn found<T>(answer: Result<T, Status>, doing: impl Into<String>) -> Result<Option<T>, ContainerdError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed(doing)(status)),
    }
}

/// Success if it is made now or was there before.
fn made<T>(answer: Result<T, Status>, doing: impl Into<String>) -> Result<(), ContainerdError> {
    match answer {
        Err(status) if status.code() != Code::AlreadyExists => Err(failed(doing)(status)),
        _ => Ok(()),
    }
}
