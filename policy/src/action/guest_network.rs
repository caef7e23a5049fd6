//! Network configuration of the pod: `guest_network`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Configures the network device of the guest. Policies without `casemate_version` allow it without evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Name of the interface from then on.
    pub interface: String,
    /// Its addresses, as `10.0.0.2/24`.
    pub addresses: Vec<String>,
    /// Routes through it, in the order in which they are added.
    pub routes: Vec<Route>,
    /// Name servers of the pod.
    pub nameservers: Vec<String>,
    /// As `02:00:00:00:00:01`; empty: the device's own.
    #[serde(default)]
    pub hardware_address: String,
    /// Longest packet in bytes; 0: the kernel's default.
    #[serde(default)]
    pub mtu: u32,
    /// Permanent entries of the neighbour table.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// An IP address.
    pub address: String,
    /// As `02:00:00:00:00:01`.
    pub hardware_address: String,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Network as `10.0.0.0/8`; the default route is `0.0.0.0/0` or `::/0`.
    pub destination: String,
    /// Next hop; empty for a destination on the link.
    pub gateway: String,
    /// Preferred source address; empty: the kernel's choice.
    #[serde(default)]
    pub source: String,
    /// The gateway is on the link although no address says so.
    #[serde(default)]
    pub on_link: bool,
    /// Priority; 0: the kernel's default.
    #[serde(default)]
    pub metric: u32,
}

impl Action for GuestNetwork {
    const POINT: &'static str = "guest_network";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.interface),
            ..Subject::default()
        }
    }
}
