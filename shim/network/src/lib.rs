//! The host's side of a pod's network: the interface that CNI made in the pod's namespace, joined to the TAP of the pod's VM.
//!
//! ```text
//!   CNI's bridge ─ veth ─┬─ eth0 ──ingress: redirect──► casemate0 (TAP) ── VMM ── the guest's eth0
//!                        └────────◄──redirect :ingress──┘                           same MAC, MTU, addresses, routes
//! ```
//! Every frame that reaches the interface goes to the guest and every frame of the guest leaves by it, as in Kata's `tcfilter` model. The
//! namespace keeps its addresses, which CNI's DEL looks for, but its own stack never sees a frame: it answers no ARP and resets no
//! connection. What its processes send to loopback can be carried to the guest too ([`Netns::loopback`]).
//!
//! The kernel must have `sch_ingress`, `cls_u32`, `act_mirred` and `tun`; `loopback` needs BPF (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9).

mod bpf;
mod loopback;
mod namespace;
mod read;
mod redirect;
mod socket;
mod tap;

pub use loopback::Loopback;
pub use namespace::Netns;
pub use tap::Tap;

use std::{io, net::IpAddr, path::PathBuf};

/// Most entries of a kind that an interface may have.
pub const ENTRIES_MAX: usize = 256;

/// Why a pod's network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace cannot be opened.
    #[error("cannot open the network namespace {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// The path leads to something else.
    #[error("{} is no network namespace", .0.display())]
    NotANamespace(PathBuf),
    /// It is the host's.
    #[error("the network namespace {} is the host's: a VM cannot be in it (hostNetwork needs another RuntimeClass)", .0.display())]
    Host(PathBuf),
    /// More than one interface.
    #[error("the pod has {} interfaces ({}), but its VM has one: let CNI make one", .0.len(), .0.join(", "))]
    Several(Vec<String>),
    /// More than [`ENTRIES_MAX`].
    #[error("interface {interface} has more than {ENTRIES_MAX} {entries}")]
    TooMany {
        /// Its name.
        interface: String,
        /// Of what.
        entries: &'static str,
    },
    /// A route of a kind that the guest is not given.
    #[error("interface {interface} has a route to {destination} {why}")]
    Route {
        /// Its name.
        interface: String,
        /// Of the route.
        destination: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The kernel refused a step.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
}

/// The interface of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its index in its namespace.
    pub index: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// In bytes.
    pub mtu: u32,
    /// Addresses with their prefix lengths, without those that are for the link only.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routes by it in the main table, in an order in which they can be added.
    pub routes: Vec<Route>,
    /// Permanent entries of the neighbour table.
    pub neighbours: Vec<(IpAddr, [u8; 6])>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network; length 0 is the default route.
    pub destination: (IpAddr, u8),
    /// Next hop; `None` for a destination on the link.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// The next hop is on the link although no address says so.
    pub on_link: bool,
    /// Priority; 0 is the kernel's default.
    pub metric: u32,
}
