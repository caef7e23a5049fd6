//! Maps the agent's errors to ttrpc status codes and texts: the only place that decides which text leaves the guest.
//!
//! A text names the enforcement point, the rule, or the field of the request, and repeats what the host itself sent. Causes
//! from the kernel or a program of the guest stay inside, because they may name files that the host cannot see.

use std::io::ErrorKind;

use agent_protocol::limits::ACT_DEADLINE;
use guest_images::{PullerError, StoreError};
use permit_log::Full;
use policy::Denied;
use ttrpc::Code;

use crate::{
    container::ContainerError,
    decode::DecodeError,
    evidence::EvidenceError,
    gate::GateError,
    images::PullError,
    judge::Refusal,
    launcher::LauncherError,
    network::NetworkError,
    pod_files::PodFilesError,
    storage::{StepError, StorageError},
    streams::ClaimError,
};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Stream(#[from] ClaimError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    PodFiles(#[from] PodFilesError),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error("there is no report")]
    Evidence(#[from] EvidenceError),
    #[error("the agent failed on this request")]
    Panicked,
    #[error("the request did not end within {ACT_DEADLINE:?}")]
    Stuck,
    #[error("the policy's state could not be rolled back")]
    Undone,
}

impl RequestError {
    /// Whether the guest may differ from what the policy remembers of it.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Panicked | Self::Stuck | Self::Undone => true,
            Self::Storage(error) => matches!(error, StorageError::NotUndone),
            Self::Container(error) => matches!(error, ContainerError::NotUndone),
            Self::Network(error) => matches!(error, NetworkError::NotUndone),
            Self::Decode(_)
            | Self::Gate(_)
            | Self::Denied(_)
            | Self::Full(_)
            | Self::Stream(_)
            | Self::PodFiles(_)
            | Self::Pull(_)
            | Self::Evidence(_) => false,
        }
    }
}

impl From<StepError> for RequestError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Denied(denied) => Self::Denied(denied),
            StepError::Full(full) => Self::Full(full),
            StepError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denied) => Self::Denied(denied),
            Refusal::Full(full) => Self::Full(full),
        }
    }
}

/// The text that the host receives.
pub fn wire_text(error: &RequestError) -> String {
    match error {
        // These causes are the agent's own and name numbers of the request.
        RequestError::Decode(error) => chain(error),
        // The policy is the host's own text.
        RequestError::Gate(error @ GateError::Policy(_)) => chain(error),
        RequestError::Gate(error @ GateError::Evidence(why)) => format!("{error}: {why}"),
        RequestError::Evidence(why) => format!("{error}: {why}"),
        RequestError::Storage(StorageError::Io { step, cause }) => lacking(&format!("{step} failed"), cause),
        RequestError::Storage(error @ StorageError::Pulled(StoreError::Stage(cause))) => lacking(&error.to_string(), cause),
        // What the kernel says of an address or a route that the host itself sent.
        RequestError::Network(NetworkError::Step { step, cause }) => format!("{step} failed: {}", cause.kind()),
        RequestError::Container(ContainerError::Io { step, cause }) => lacking(&format!("{step} failed"), cause),
        other => other.to_string(),
    }
}

/// The text names only causes about resources that the host gave the guest: disk space and memory.
fn lacking(text: &str, cause: &std::io::Error) -> String {
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("{text}: there is no space left"),
        ErrorKind::OutOfMemory => format!("{text}: there is no memory left"),
        _ => text.to_owned(),
    }
}

/// An error and its causes on one line, for the console before any host is served.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<RequestError> for ttrpc::Error {
    fn from(error: RequestError) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(code(&error), wire_text(&error)))
    }
}

fn code(error: &RequestError) -> Code {
    match error {
        RequestError::Decode(_) => Code::INVALID_ARGUMENT,
        RequestError::Denied(_) => Code::PERMISSION_DENIED,
        RequestError::Full(_) => Code::RESOURCE_EXHAUSTED,
        RequestError::Evidence(_) => Code::UNAVAILABLE,
        RequestError::Gate(error) => match error {
            GateError::Closed | GateError::AlreadyOpen | GateError::Spent | GateError::Sealed => Code::FAILED_PRECONDITION,
            GateError::WrongDigest { .. } => Code::PERMISSION_DENIED,
            GateError::Policy(_) | GateError::Text => Code::INVALID_ARGUMENT,
            GateError::Log(_) => Code::RESOURCE_EXHAUSTED,
            GateError::Evidence(_) => Code::UNAVAILABLE,
        },
        RequestError::Storage(error) => match error {
            StorageError::Occupied(_) => Code::ALREADY_EXISTS,
            StorageError::Absent(_) | StorageError::NotPulled => Code::NOT_FOUND,
            StorageError::InUse(_) | StorageError::NoScratch => Code::FAILED_PRECONDITION,
            StorageError::NoShares => Code::UNIMPLEMENTED,
            StorageError::TooMany(_) | StorageError::Pulled(StoreError::TooMany) => Code::RESOURCE_EXHAUSTED,
            StorageError::BeyondDisk { .. } | StorageError::NoDisk(_) => Code::UNAVAILABLE,
            StorageError::Io { .. }
            | StorageError::Mapper { .. }
            | StorageError::ScratchFormat(_)
            | StorageError::Pulled(_)
            | StorageError::NotUndone => Code::INTERNAL,
        },
        RequestError::Container(error) => match error {
            ContainerError::Unknown(_) | ContainerError::UnknownProcess { .. } => Code::NOT_FOUND,
            ContainerError::Exists(_) | ContainerError::ProcessExists { .. } => Code::ALREADY_EXISTS,
            ContainerError::State { .. } | ContainerError::NoRootfs(_) | ContainerError::NoSandbox(_) | ContainerError::NoTerminal => {
                Code::FAILED_PRECONDITION
            }
            ContainerError::TooMany(_) => Code::RESOURCE_EXHAUSTED,
            ContainerError::BelowUse { .. } => Code::PERMISSION_DENIED,
            ContainerError::Ended(_) => Code::NOT_FOUND,
            ContainerError::Source(_)
            | ContainerError::Device(_)
            | ContainerError::Mask(_)
            | ContainerError::NestedSource
            | ContainerError::Sysctl(_)
            | ContainerError::User(_) => Code::INVALID_ARGUMENT,
            ContainerError::Launcher(LauncherError::Refused { .. }) => Code::UNKNOWN,
            ContainerError::TerminalWithoutStdio => Code::PERMISSION_DENIED,
            ContainerError::Busy(_) | ContainerError::Restless(_) => Code::DEADLINE_EXCEEDED,
            ContainerError::Launcher(LauncherError::Silent) => Code::DEADLINE_EXCEEDED,
            ContainerError::Launcher(_) | ContainerError::Io { .. } | ContainerError::Stdio(_) | ContainerError::NotUndone => {
                Code::INTERNAL
            }
        },
        RequestError::Stream(_) => Code::UNAVAILABLE,
        RequestError::Network(error) => match error {
            NetworkError::NobodyListens(_) => Code::FAILED_PRECONDITION,
            NetworkError::AnothersPort(_) => Code::PERMISSION_DENIED,
            NetworkError::NoDevice => Code::UNAVAILABLE,
            NetworkError::SeveralDevices => Code::FAILED_PRECONDITION,
            NetworkError::Unusable(_) | NetworkError::Unknown { .. } | NetworkError::Step { .. } | NetworkError::NotUndone => {
                Code::INTERNAL
            }
        },
        RequestError::Pull(error) => match error {
            PullError::Busy => Code::RESOURCE_EXHAUSTED,
            // The registry, the image or the configuration must change.
            PullError::Puller(PullerError::Refused(_)) => Code::FAILED_PRECONDITION,
            PullError::Late => Code::DEADLINE_EXCEEDED,
            PullError::Io(_) | PullError::Puller(_) => Code::INTERNAL,
        },
        RequestError::PodFiles(_) | RequestError::Panicked | RequestError::Undone => Code::INTERNAL,
        RequestError::Stuck => Code::DEADLINE_EXCEEDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{container::UserError, decode};
    use std::io;

    fn secret() -> io::Error {
        io::Error::other("/run/gcs/c/secret")
    }

    #[test]
    fn causes_of_the_guest_stay_inside() {
        let errors = [
            RequestError::Storage(StorageError::Io {
                step: "mounting a layer",
                cause: secret(),
            }),
            RequestError::Container(ContainerError::Io {
                step: "starting the container",
                cause: secret(),
            }),
            RequestError::Container(ContainerError::Stdio(secret())),
            RequestError::Container(ContainerError::User(UserError::File {
                file: "etc/passwd",
                cause: secret(),
            })),
            RequestError::Container(ContainerError::Launcher(LauncherError::Io(secret()))),
            RequestError::Gate(GateError::Evidence(EvidenceError::BootParams(secret()))),
        ];
        for error in errors {
            let text = wire_text(&error);
            assert!(!text.contains("secret") && !text.contains("/run"), "{text}");
            assert!(!error.is_uncertain());
        }
    }

    #[test]
    fn causes_that_the_host_can_fix_are_reported() {
        let full = StorageError::Io {
            step: "creating a container's upper directory",
            cause: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert_eq!(
            wire_text(&full.into()),
            "creating a container's upper directory failed: there is no space left"
        );
        let id = decode::container_id(&"a".repeat(1000)).unwrap_err();
        assert_eq!(wire_text(&id.into()), "container_id: the id has 1000 bytes, more than 128");
    }
}
