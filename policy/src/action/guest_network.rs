//! Network configuration of the pod: `guest_network`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Configures an interface of the guest. Policies without `casemate_version` allow it without evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Name of the interface.
    pub interface: String,
    /// Its addresses, as `10.0.0.2/24`.
    pub addresses: Vec<String>,
    /// Routes through it.
    pub routes: Vec<Route>,
    /// Name servers of the pod.
    pub nameservers: Vec<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Network as `10.0.0.0/8`; the default route is `0.0.0.0/0` or `::/0`.
    pub destination: String,
    /// Next hop; empty for a destination on the link.
    pub gateway: String,
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
