//! Gate 2: turns the host's bytes into checked values, or refuses them with InvalidArgument. No protobuf type is used beyond this file.

mod external;
mod fragment;
mod geometry;
mod limits;
mod network;
mod pod_files;
mod pull;
mod seccomp;
mod task;

pub use container_document::{CapabilitySets, HostSpec, MountEntry, Namespace, ProcessSpec, User};
pub use external::ExternalOrder;
pub use fragment::{Addition, injection};
pub use geometry::Geometry;
pub use limits::Limits;
pub use network::{ForwardOrder, network};
pub use pod_files::pod_files;
pub use pull::PullOrder;
pub use seccomp::digest as seccomp_digest;
pub use task::update;

use agent_protocol::{
    CreateContainerRequest, ExecProcessRequest, IdError, MountLayerRequest, MountOverlayRequest, MountScratchRequest,
    ResizeTerminalRequest, SetPolicyRequest, SignalProcessRequest, Stdio, StreamToken, TokenError,
    limits::{FRAGMENT_BYTES, LAYERS, OVERLAY_LAYERS, POLICY_BYTES, REFERENCE_BYTES, SHARES, SPEC_BYTES, TERMINAL_CELLS},
    valid_caller_id,
};
use container_document::Refused;
use policy::{ContainerId, RootHash, action::RwMountDevice};
use policy_fragment::BlobError;

use crate::paths;

/// Why a request is malformed. Names the field, and nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{field}")]
    Id {
        field: &'static str,
        #[source]
        cause: IdError,
    },
    #[error("{field}")]
    Token {
        field: &'static str,
        #[source]
        cause: TokenError,
    },
    #[error("the policy has {0} bytes, more than {POLICY_BYTES}")]
    PolicyTooLong(usize),
    #[error("the signed message has {0} bytes, more than {FRAGMENT_BYTES}")]
    FragmentTooLong(usize),
    #[error(transparent)]
    Fragment(#[from] BlobError),
    #[error("{field} has {bytes} bytes, more than {REFERENCE_BYTES}")]
    ReferenceTooLong { field: &'static str, bytes: usize },
    #[error("{field} has {bytes} bytes, more than {SPEC_BYTES}")]
    TooLong { field: &'static str, bytes: usize },
    #[error("{field} has {bytes} bytes instead of {needed}")]
    Length { field: &'static str, bytes: usize, needed: usize },
    #[error("{field} is {value}, outside {allowed}")]
    Range {
        field: &'static str,
        value: u64,
        allowed: &'static str,
    },
    #[error("the layer's numbers contradict each other: {0}")]
    Geometry(&'static str),
    #[error("{field} is not a valid JSON document of its kind at line {line}, column {column}")]
    Json { field: &'static str, line: usize, column: usize },
    #[error("{field}: {reason}")]
    Spec { field: &'static str, reason: &'static str },
}

impl From<Refused> for DecodeError {
    fn from(Refused { field, reason }: Refused) -> Self {
        Self::Spec { field, reason }
    }
}

/// A process in a container: the init, or an exec by its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessId {
    Init,
    Exec(String),
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Init => f.write_str("init"),
            Self::Exec(id) => f.write_str(id),
        }
    }
}

/// The streams of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdioPlan {
    /// All three are one terminal.
    pub terminal: Option<TerminalSize>,
    pub stdin: Option<StreamToken>,
    pub stdout: Option<StreamToken>,
    pub stderr: Option<StreamToken>,
}

/// In characters; zeros if the caller does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// The policy, and reference values of the guest for verifiers.
#[derive(Debug, Default)]
pub struct PolicyOrder {
    pub text: Vec<u8>,
    /// Opaque.
    pub reference: String,
    /// Opaque.
    pub transparent_reference: String,
}

#[cfg(test)]
impl From<&str> for PolicyOrder {
    fn from(text: &str) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// A layer to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOrder {
    pub slot: u32,
    pub source: LayerSource,
    pub root_hash: RootHash,
}

/// Where a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// An extent of the layer disk.
    Disk(Geometry),
    /// Among those that the guest pulled.
    Pulled,
}

/// A container to create.
#[derive(Debug)]
pub struct CreateOrder {
    pub container: ContainerId,
    pub sandbox: ContainerId,
    pub spec: HostSpec,
    /// The spec's `linux.resources`.
    pub limits: Limits,
    pub stdio: StdioPlan,
}

/// A process to start in a container.
#[derive(Debug)]
pub struct ExecOrder {
    pub container: ContainerId,
    pub exec_id: String,
    pub process: ProcessSpec,
    pub stdio: StdioPlan,
}

/// A signal to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalOrder {
    pub container: ContainerId,
    pub process: ProcessId,
    pub signal: i32,
    pub all: bool,
}

/// A container's id.
pub fn container_id(id: &str) -> Result<ContainerId, DecodeError> {
    valid_caller_id(id).map_err(|cause| DecodeError::Id {
        field: "container_id",
        cause,
    })?;
    Ok(ContainerId::new(id))
}

/// A sandbox's id.
pub fn sandbox_id(id: &str) -> Result<ContainerId, DecodeError> {
    valid_caller_id(id).map_err(|cause| DecodeError::Id {
        field: "sandbox_id",
        cause,
    })?;
    Ok(ContainerId::new(id))
}

fn exec_id(id: &str) -> Result<String, DecodeError> {
    valid_caller_id(id).map_err(|cause| DecodeError::Id { field: "exec_id", cause })?;
    Ok(id.to_owned())
}

/// An exec's id; none for the init.
pub fn process_id(id: &str) -> Result<ProcessId, DecodeError> {
    if id.is_empty() {
        Ok(ProcessId::Init)
    } else {
        exec_id(id).map(ProcessId::Exec)
    }
}

/// The policy's text, and the data that accompanies it.
pub fn policy(request: SetPolicyRequest) -> Result<PolicyOrder, DecodeError> {
    let reference = |field, text: String| match text.len() {
        0..=REFERENCE_BYTES => Ok(text),
        bytes => Err(DecodeError::ReferenceTooLong { field, bytes }),
    };
    if request.policy.len() > POLICY_BYTES {
        return Err(DecodeError::PolicyTooLong(request.policy.len()));
    }
    Ok(PolicyOrder {
        text: request.policy,
        reference: reference("reference_info", request.reference_info)?,
        transparent_reference: reference("transparent_reference_info", request.transparent_reference_info)?,
    })
}

/// The slot number of a layer.
pub fn layer_slot(slot: u32) -> Result<u32, DecodeError> {
    let slots = LAYERS as u32;
    if slot < slots {
        Ok(slot)
    } else {
        Err(DecodeError::Range {
            field: "slot",
            value: slot.into(),
            allowed: "0 to 1023",
        })
    }
}

const _: () = assert!(LAYERS == 1024 && SHARES == 256, "kept for the texts of errors");

/// The number of a shared directory or of a host disk.
pub fn share(field: &'static str, number: u32) -> Result<u32, DecodeError> {
    if number < SHARES as u32 {
        Ok(number)
    } else {
        Err(DecodeError::Range {
            field,
            value: number.into(),
            allowed: "0 to 255",
        })
    }
}

impl TryFrom<MountLayerRequest> for LayerOrder {
    type Error = DecodeError;

    fn try_from(request: MountLayerRequest) -> Result<Self, DecodeError> {
        let root_hash: [u8; 32] = request.root_hash.as_slice().try_into().map_err(|_| DecodeError::Length {
            field: "root_hash",
            bytes: request.root_hash.len(),
            needed: 32,
        })?;
        let numbers = (request.first_sector, request.data_blocks, request.total_blocks);
        let source = match (request.pulled, numbers) {
            (false, (first, data, total)) => LayerSource::Disk(Geometry::new(first, data, total)?),
            (true, (0, 0, 0)) => LayerSource::Pulled,
            (true, _) => {
                return Err(DecodeError::Spec {
                    field: "pulled",
                    reason: "a pulled layer has no place on the layer disk",
                });
            }
        };
        Ok(Self {
            slot: layer_slot(request.slot)?,
            source,
            root_hash: RootHash::new(&root_hash),
        })
    }
}

/// The sandbox, and what the policy judges about its scratch.
pub fn scratch(request: &MountScratchRequest) -> Result<(ContainerId, RwMountDevice), DecodeError> {
    let sandbox = sandbox_id(&request.sandbox_id)?;
    let target = paths::container(&sandbox);
    let asked = match (request.in_memory, request.encrypted) {
        (false, encrypted) => RwMountDevice::on_disk(target, encrypted),
        (true, false) => RwMountDevice::in_memory(target),
        (true, true) => {
            return Err(DecodeError::Spec {
                field: "encrypted",
                reason: "scratch in memory is not on a disk that could be encrypted",
            });
        }
    };
    Ok((sandbox, asked))
}

/// Container, sandbox and the slots of its layers.
pub fn overlay(request: &MountOverlayRequest) -> Result<(ContainerId, ContainerId, Vec<u32>), DecodeError> {
    let count = request.layer_slots.len();
    if count > OVERLAY_LAYERS {
        return Err(DecodeError::Range {
            field: "layer_slots",
            value: count as u64,
            allowed: "0 to 128 layers",
        });
    }
    let slots = request.layer_slots.iter().map(|&slot| layer_slot(slot)).collect::<Result<_, _>>()?;
    Ok((container_id(&request.container_id)?, sandbox_id(&request.sandbox_id)?, slots))
}

impl TryFrom<CreateContainerRequest> for CreateOrder {
    type Error = DecodeError;

    fn try_from(request: CreateContainerRequest) -> Result<Self, DecodeError> {
        let spec: HostSpec = json("spec", &request.spec)?;
        spec.check()?;
        let limits = spec.linux.resources.as_ref().map(Limits::try_from).transpose()?.unwrap_or_default();
        Ok(Self {
            container: container_id(&request.container_id)?,
            sandbox: sandbox_id(&request.sandbox_id)?,
            spec,
            limits,
            stdio: stdio(request.stdio.as_ref())?,
        })
    }
}

impl TryFrom<ExecProcessRequest> for ExecOrder {
    type Error = DecodeError;

    fn try_from(request: ExecProcessRequest) -> Result<Self, DecodeError> {
        let process: ProcessSpec = json("process", &request.process)?;
        process.check()?;
        Ok(Self {
            container: container_id(&request.container_id)?,
            exec_id: exec_id(&request.exec_id)?,
            process,
            stdio: stdio(request.stdio.as_ref())?,
        })
    }
}

fn json<'a, T: serde::Deserialize<'a>>(field: &'static str, bytes: &'a [u8]) -> Result<T, DecodeError> {
    if bytes.len() > SPEC_BYTES {
        return Err(DecodeError::TooLong { field, bytes: bytes.len() });
    }
    // The parser's own message may quote the document.
    serde_json::from_slice(bytes).map_err(|e| DecodeError::Json {
        field,
        line: e.line(),
        column: e.column(),
    })
}

fn stdio(request: Option<&Stdio>) -> Result<StdioPlan, DecodeError> {
    let Some(request) = request else { return Ok(StdioPlan::default()) };
    let token = |field, bytes: &[u8]| StreamToken::from_field(bytes).map_err(|cause| DecodeError::Token { field, cause });
    let terminal = request.terminal.then(|| terminal_size(request.width, request.height)).transpose()?;
    Ok(StdioPlan {
        terminal,
        stdin: token("stdin_token", &request.stdin_token)?,
        stdout: token("stdout_token", &request.stdout_token)?,
        stderr: token("stderr_token", &request.stderr_token)?.filter(|_| terminal.is_none()),
    })
}

fn terminal_size(width: u32, height: u32) -> Result<TerminalSize, DecodeError> {
    let cells = |field, value: u32| {
        let out_of_range = DecodeError::Range {
            field,
            value: value.into(),
            allowed: "0 to 65535",
        };
        u16::try_from(value).map_err(|_| out_of_range)
    };
    const { assert!(TERMINAL_CELLS == u16::MAX as u32) };
    Ok(TerminalSize {
        columns: cells("width", width)?,
        rows: cells("height", height)?,
    })
}

/// Container, process and the new size of its terminal.
pub fn resize(request: &ResizeTerminalRequest) -> Result<(ContainerId, ProcessId, TerminalSize), DecodeError> {
    Ok((
        container_id(&request.container_id)?,
        process_id(&request.exec_id)?,
        terminal_size(request.width, request.height)?,
    ))
}

impl TryFrom<&SignalProcessRequest> for SignalOrder {
    type Error = DecodeError;

    fn try_from(request: &SignalProcessRequest) -> Result<Self, DecodeError> {
        let signal = match request.signal {
            number @ 1..=64 => number as i32,
            other => {
                return Err(DecodeError::Range {
                    field: "signal",
                    value: other.into(),
                    allowed: "1 to 64",
                });
            }
        };
        Ok(Self {
            container: container_id(&request.container_id)?,
            process: process_id(&request.exec_id)?,
            signal,
            all: request.all,
        })
    }
}

#[cfg(test)]
mod tests;
