//! Actions that a policy decides: one struct per enforcement point, with the fields of its input document.

use serde::Serialize;

use crate::verdict::Verdict;

mod attestation_report;
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
mod pause_container;
mod plan9;
mod pod_files;
mod port_forward;
mod pull_image;
mod rw_mount_device;
mod scratch;
mod shutdown_container;
mod signal_container_process;
mod update_container;
mod windows;

pub use crate::request::{Capabilities, IdName, Mount, Subject};
pub use crate::verdict::FragmentVerdict;
pub use attestation_report::AttestationReport;
pub use confine_container::{ConfineContainer, Namespace, Rlimit};
pub use create_container::{CreateContainer, Device};
pub use exec_external::ExecExternal;
pub use exec_in_container::ExecInContainer;
pub use flags::{DumpStacks, GetProperties, HostNetwork, RuntimeLogging};
pub use guest_network::{GuestNetwork, Neighbour, Route};
pub use load_fragment::LoadFragment;
pub use load_transparency_trust_list::{LoadTransparencyTrustList, TrustListVerdict};
pub use mount_blockdev::{MountBlockdev, UnmountBlockdev};
pub use mount_device::{MountDevice, UnmountDevice};
pub use mount_overlay::{MountOverlay, UnmountOverlay};
pub use pause_container::PauseContainer;
pub use plan9::{Plan9Mount, Plan9Unmount};
pub use pod_files::PodFiles;
pub use port_forward::PortForward;
pub use pull_image::PullImage;
pub use rw_mount_device::{Medium, RwMountDevice, RwUnmountDevice};
pub use scratch::{ScratchMount, ScratchUnmount};
pub use shutdown_container::ShutdownContainer;
pub use signal_container_process::SignalContainerProcess;
pub use update_container::{Limits, UpdateContainer};
pub use windows::{LogProvider, MountCims, ProvidersVerdict, RegistryChanges};

/// One implementor per enforcement point; serialised, it is exactly the Rego input document of that point.
pub trait Action: Serialize {
    /// Name of the enforcement point; the rule is `data.policy.<POINT>`.
    const POINT: &'static str;
    /// The part of the action that the policy may narrow: environment, capabilities, stdio.
    type Verdict: Verdict;
    /// The parts of the action that its verdict and its denial refer to.
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
    /// What the action adds to the policy when it is allowed; most actions add nothing.
    #[doc(hidden)]
    fn load(&self) -> Option<Load<'_>> {
        None
    }
}

/// What an action adds to the policy. Only the actions of this module construct one.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Load<'a> {
    /// Rules of a signed fragment.
    #[non_exhaustive]
    Fragment(&'a LoadFragment),
    /// Keys of transparency ledgers.
    #[non_exhaustive]
    TrustList(&'a LoadTransparencyTrustList),
}
