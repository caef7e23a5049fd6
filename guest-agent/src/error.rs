//! From the agent's errors to ttrpc status codes: the only place that knows them.

use policy::Denied;
use ttrpc::Code;

use crate::{
    container::ContainerError,
    decode::DecodeError,
    gate::GateError,
    launcher::LauncherError,
    storage::{StepError, StorageError},
    streams::ClaimError,
};

/// What a request ends with when it does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Stream(#[from] ClaimError),
    #[error("the agent failed on this request")]
    Panicked,
}

impl From<StepError> for RequestError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Denied(denied) => Self::Denied(denied),
            StepError::Storage(error) => Self::Storage(error),
        }
    }
}

/// An error and its causes on one line.
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
        ttrpc::Error::RpcStatus(ttrpc::get_status(code(&error), chain(&error)))
    }
}

fn code(error: &RequestError) -> Code {
    match error {
        RequestError::Decode(_) => Code::INVALID_ARGUMENT,
        RequestError::Denied(_) => Code::PERMISSION_DENIED,
        RequestError::Gate(error) => match error {
            GateError::Closed | GateError::AlreadyOpen | GateError::Spent => Code::FAILED_PRECONDITION,
            GateError::WrongDigest { .. } => Code::PERMISSION_DENIED,
            GateError::Policy(_) | GateError::Text => Code::INVALID_ARGUMENT,
            GateError::Evidence(_) => Code::UNAVAILABLE,
        },
        RequestError::Storage(error) => match error {
            StorageError::Occupied(_) => Code::ALREADY_EXISTS,
            StorageError::Absent(_) => Code::NOT_FOUND,
            StorageError::InUse(_) | StorageError::NoScratch | StorageError::TooMany(_) => Code::FAILED_PRECONDITION,
            StorageError::BeyondDisk { .. } | StorageError::NoDisk(_) => Code::UNAVAILABLE,
            StorageError::Io { .. } | StorageError::Mapper { .. } | StorageError::ScratchFormat(_) => Code::INTERNAL,
        },
        RequestError::Container(error) => match error {
            ContainerError::Unknown(_) | ContainerError::UnknownProcess { .. } => Code::NOT_FOUND,
            ContainerError::Exists(_) | ContainerError::ProcessExists { .. } => Code::ALREADY_EXISTS,
            ContainerError::State { .. }
            | ContainerError::NoRootfs(_)
            | ContainerError::NoSandbox(_)
            | ContainerError::TooMany(_)
            | ContainerError::NoTerminal => Code::FAILED_PRECONDITION,
            ContainerError::Ended(_) => Code::NOT_FOUND,
            ContainerError::Source(_) | ContainerError::NestedSource | ContainerError::User(_) => Code::INVALID_ARGUMENT,
            ContainerError::Launcher(LauncherError::Refused(_)) => Code::UNKNOWN,
            ContainerError::TerminalWithoutStdio => Code::PERMISSION_DENIED,
            ContainerError::Busy(_) | ContainerError::Restless(_) => Code::DEADLINE_EXCEEDED,
            ContainerError::Launcher(_) | ContainerError::Io { .. } | ContainerError::Stdio(_) => Code::INTERNAL,
        },
        RequestError::Stream(_) => Code::UNAVAILABLE,
        RequestError::Panicked => Code::INTERNAL,
    }
}
