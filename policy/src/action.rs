//! What can be asked of a policy: one struct per enforcement point, with the input fields policies know.

use serde::{Deserialize, Serialize};

use serde_json::{Map, Value};

use crate::denied::Reason;
use crate::enforcer::Enforcer;
use crate::ids::ContainerId;
use crate::verdict::Verdict;

mod confine_container;
mod create_container;
mod exec_external;
mod exec_in_container;
mod flags;
mod guest_network;
mod load_fragment;
mod load_transparency_trust_list;
mod mount_blockdev;
mod mount_device;
mod mount_overlay;
mod plan9;
mod port_forward;
mod rw_mount_device;
mod scratch;
mod shutdown_container;
mod signal_container_process;
mod windows;

pub use confine_container::{ConfineContainer, Namespace, Rlimit};
pub use create_container::{CreateContainer, Device};
pub use exec_external::ExecExternal;
pub use exec_in_container::ExecInContainer;
pub use flags::{DumpStacks, GetProperties, HostNetwork, RuntimeLogging};
pub use guest_network::{GuestNetwork, Route};
pub use load_fragment::{FragmentVerdict, LoadFragment};
pub use load_transparency_trust_list::{LoadTransparencyTrustList, TrustListVerdict};
pub use mount_blockdev::{MountBlockdev, UnmountBlockdev};
pub use mount_device::{MountDevice, UnmountDevice};
pub use mount_overlay::{MountOverlay, UnmountOverlay};
pub use plan9::{Plan9Mount, Plan9Unmount};
pub use port_forward::PortForward;
pub use rw_mount_device::{RwMountDevice, RwUnmountDevice};
pub use scratch::{ScratchMount, ScratchUnmount};
pub use shutdown_container::ShutdownContainer;
pub use signal_container_process::SignalContainerProcess;
pub use windows::{LogProvider, MountCims, ProvidersVerdict, RegistryChanges};

/// One implementor per enforcement point; serialised, it is exactly the Rego input document of that point.
pub trait Action: Serialize {
    /// Rule evaluated as `data.policy.<POINT>`.
    const POINT: &'static str;
    /// What the policy may narrow (kept environment, kept capabilities, stdio).
    type Verdict: Verdict;
    /// The parts of the action that the verdict and messages refer to.
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
    /// Judges the action; one question for all but those that load something.
    #[doc(hidden)]
    fn judge(&self, enforcer: &mut Enforcer) -> Result<(Map<String, Value>, Self::Verdict), Reason>
    where
        Self: Sized,
    {
        enforcer.judge(self)
    }
}

/// The parts of an action that its verdict and its denial speak about.
#[derive(Debug, Default, Clone, Copy)]
pub struct Subject<'a> {
    /// The container acted upon.
    pub container: Option<&'a ContainerId>,
    /// The environment asked for.
    pub env: Option<&'a [String]>,
    /// The capabilities asked for; see [`Subject::capabilities_needed`].
    pub capabilities: Option<&'a Capabilities>,
    /// Whether an action without capabilities is refused before the policy is asked.
    pub capabilities_needed: bool,
    /// Whether the answer decides on stdio for the container and its later processes.
    pub decides_stdio: bool,
    /// The mount point or device acted upon.
    pub target: Option<&'a str>,
}

/// A user or group: decimal id and the name found in the container's own files (empty if none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdName {
    /// Decimal number.
    pub id: String,
    /// Name, or empty.
    pub name: String,
}

impl IdName {
    /// Id `id` with the name `name`.
    pub fn new(id: u32, name: impl Into<String>) -> Self {
        Self {
            id: id.to_string(),
            name: name.into(),
        }
    }
}

/// The five capability sets of a process, names as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Ambient set.
    pub ambient: Vec<String>,
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
}

/// A mount of an OCI spec after the guest has rewritten its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// Mount options; `None` where the spec has none.
    pub options: Option<Vec<String>>,
    /// Path or file system name in the guest.
    pub source: String,
    /// File system type.
    #[serde(rename = "type")]
    pub kind: String,
}
