//! One entry: an act that was permitted, its outcome, or an exit; fixed fields and digests, within a few hundred bytes.

use sha2::{Digest as _, Sha256};

use crate::wire::{DecodeError, Reader, Writer};

/// SHA-256 of something, or a container's id, which has the same size.
pub type Digest = [u8; 32];

/// Most layers of a root file system.
pub const MAX_ROOTFS_LAYERS: usize = 128;
/// Enforcement points whose acts are entries of no kind of their own.
const POINTS: [&str; 25] = [
    "attestation_report",
    "confine_container",
    "dump_stacks",
    "get_properties",
    "guest_network",
    "host_network",
    "log_provider",
    "mount_blockdev",
    "mount_cims",
    "pause_container",
    "plan9_mount",
    "plan9_unmount",
    "pod_files",
    "port_forward",
    "pull_image",
    "registry_changes",
    "resume_container",
    "runtime_logging",
    "rw_mount_device",
    "rw_unmount_device",
    "scratch_mount",
    "scratch_unmount",
    "unmount_blockdev",
    "unmount_device",
    "update_container",
];

/// One of the enforcement points whose acts are entries of no kind of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(&'static str);

impl Point {
    /// The point of this name.
    pub const fn named(name: &str) -> Option<Self> {
        let mut index = 0;
        while index < POINTS.len() {
            if same(POINTS[index].as_bytes(), name.as_bytes()) {
                return Some(Self(POINTS[index]));
            }
            index += 1;
        }
        None
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// Comparison of slices, which is not const.
const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    one.len() == other.len()
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// The container's init.
    Init,
    /// A process that was started in it later.
    Exec,
    /// Every process of the container.
    All,
}

/// What the agent permitted, and what came of it. An act's entry is written before the act begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of fields say what they are; those that do not have a comment")]
pub enum Entry {
    /// The policy with this SHA-256 is in force. Only the first entry is one.
    Policy { digest: Digest },
    /// A signed fragment was added to the policy. Digests of issuer, feed and Rego text.
    Fragment {
        issuer: Digest,
        feed: Digest,
        text: Digest,
        /// Of its protected header, if that has one.
        svn: Option<i64>,
    },
    /// The keys of a trust list were added.
    TrustList { issuer: Digest, subject: Digest, svn: i64 },
    /// A layer was mounted with this dm-verity root hash; zeros stand for a device without dm-verity.
    Layer { root: Digest },
    /// The container's root file system was mounted from these layers, top layer first.
    Rootfs { container: Digest, layers: Vec<Digest> },
    /// The container's root file system was unmounted.
    RootfsRemoved { container: Digest },
    /// The container was created, with its init waiting for the start.
    Create {
        container: Digest,
        /// [`command_digest`] of its init.
        command: Digest,
        /// Whether it is the pod's first container, whose namespaces the others share.
        sandbox: bool,
        privileged: bool,
    },
    /// The init of a created container was let go. No policy judges this, since it judged the creation.
    Start { container: Digest },
    /// A process was started in the container.
    Exec { container: Digest, command: Digest },
    /// A process was started in the guest, outside of all containers.
    External { command: Digest },
    /// A signal was sent.
    Signal {
        container: Digest,
        signal: i32,
        receiver: Receiver,
    },
    /// Every process of the container was killed.
    End { container: Digest },
    /// The container was removed.
    Remove { container: Digest },
    /// Any other permitted act, by its enforcement point. The subject is a container's id, or the SHA-256 of a mount point.
    Other { point: Point, subject: Option<Digest> },
    /// The act at position `of` is over. One that failed may have done something.
    Outcome { of: u64, done: bool },
    /// The process that the act at position `of` started has exited.
    Exit { of: u64, status: u32 },
    /// The guest powers off.
    PowerOff,
}

/// SHA-256 of a text.
pub fn text_digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

/// SHA-256 of a program's arguments: each as its length (u32, little endian) and its bytes.
pub fn command_digest<S: AsRef<str>>(arguments: &[S]) -> Digest {
    let mut hash = Sha256::new();
    for argument in arguments {
        // Longer arguments exist on no kernel; both ends would count them in the same way.
        hash.update((argument.as_ref().len() as u32).to_le_bytes());
        hash.update(argument.as_ref().as_bytes());
    }
    hash.finalize().into()
}

impl Entry {
    /// What kind it is, in the words of a requirements file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "policy",
            Self::Fragment { .. } => "fragment",
            Self::TrustList { .. } => "trust_list",
            Self::Layer { .. } => "layer",
            Self::Rootfs { .. } => "rootfs",
            Self::RootfsRemoved { .. } => "rootfs_removed",
            Self::Create { .. } => "create",
            Self::Start { .. } => "start",
            Self::Exec { .. } => "exec",
            Self::External { .. } => "external",
            Self::Signal { .. } => "signal",
            Self::End { .. } => "end",
            Self::Remove { .. } => "remove",
            Self::Other { point, .. } => point.as_str(),
            Self::Outcome { .. } => "outcome",
            Self::Exit { .. } => "exit",
            Self::PowerOff => "power_off",
        }
    }

    /// Whether entries can have this [`Self::kind`].
    pub fn is_kind(word: &str) -> bool {
        const KINDS: [&str; 16] = [
            "policy",
            "fragment",
            "trust_list",
            "layer",
            "rootfs",
            "rootfs_removed",
            "create",
            "start",
            "exec",
            "external",
            "signal",
            "end",
            "remove",
            "outcome",
            "exit",
            "power_off",
        ];
        KINDS.contains(&word) || Point::named(word).is_some()
    }

    /// The container that it is about.
    pub fn container(&self) -> Option<&Digest> {
        match self {
            Self::Rootfs { container, .. }
            | Self::RootfsRemoved { container }
            | Self::Create { container, .. }
            | Self::Start { container }
            | Self::Exec { container, .. }
            | Self::Signal { container, .. }
            | Self::End { container }
            | Self::Remove { container } => Some(container),
            _ => None,
        }
    }

    /// The earlier entry that it completes.
    pub fn completes(&self) -> Option<u64> {
        match self {
            Self::Outcome { of, .. } | Self::Exit { of, .. } => Some(*of),
            _ => None,
        }
    }

    /// The act that failed, if it says that.
    pub(crate) fn failed(&self) -> Option<u64> {
        match self {
            Self::Outcome { of, done: false } => Some(*of),
            _ => None,
        }
    }

    /// The kind in one byte, the length of what follows (u16), and the fields in the order of their declaration; little endian.
    pub(crate) fn write(&self, out: &mut Writer) {
        let kind = match self {
            Self::Policy { .. } => 1,
            Self::Fragment { .. } => 2,
            Self::TrustList { .. } => 3,
            Self::Layer { .. } => 4,
            Self::Rootfs { .. } => 5,
            Self::RootfsRemoved { .. } => 6,
            Self::Create { .. } => 7,
            Self::Start { .. } => 8,
            Self::Exec { .. } => 9,
            Self::External { .. } => 10,
            Self::Signal { .. } => 11,
            Self::End { .. } => 12,
            Self::Remove { .. } => 13,
            Self::Other { .. } => 14,
            Self::Outcome { .. } => 15,
            Self::Exit { .. } => 16,
            Self::PowerOff => 17,
        };
        out.framed(kind, |out| match self {
            Self::Policy { digest } | Self::Layer { root: digest } | Self::External { command: digest } => out.bytes(digest),
            Self::Fragment { issuer, feed, text, svn } => {
                out.bytes(issuer);
                out.bytes(feed);
                out.bytes(text);
                out.optional(svn.as_ref(), |out, svn| out.bytes(&svn.to_le_bytes()));
            }
            Self::TrustList { issuer, subject, svn } => {
                out.bytes(issuer);
                out.bytes(subject);
                out.bytes(&svn.to_le_bytes());
            }
            Self::Rootfs { container, layers } => {
                out.bytes(container);
                layers.iter().for_each(|layer| out.bytes(layer));
            }
            Self::RootfsRemoved { container } | Self::Start { container } | Self::End { container } | Self::Remove { container } => {
                out.bytes(container);
            }
            Self::Create {
                container,
                command,
                sandbox,
                privileged,
            } => {
                out.bytes(container);
                out.bytes(command);
                out.flag(*sandbox);
                out.flag(*privileged);
            }
            Self::Exec { container, command } => {
                out.bytes(container);
                out.bytes(command);
            }
            Self::Signal {
                container,
                signal,
                receiver,
            } => {
                out.bytes(container);
                out.bytes(&signal.to_le_bytes());
                out.bytes(&[match receiver {
                    Receiver::Init => 0,
                    Receiver::Exec => 1,
                    Receiver::All => 2,
                }]);
            }
            Self::Other { point, subject } => {
                out.optional(subject.as_ref(), |out, subject| out.bytes(subject));
                out.bytes(point.as_str().as_bytes());
            }
            Self::Outcome { of, done } => {
                out.bytes(&of.to_le_bytes());
                out.flag(*done);
            }
            Self::Exit { of, status } => {
                out.bytes(&of.to_le_bytes());
                out.bytes(&status.to_le_bytes());
            }
            Self::PowerOff => {}
        });
    }

    /// Reads what [`Self::write`] wrote, and nothing that it would not have written.
    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kind, mut body) = input.framed()?;
        let entry = match kind {
            1 => Self::Policy { digest: body.array()? },
            2 => Self::Fragment {
                issuer: body.array()?,
                feed: body.array()?,
                text: body.array()?,
                svn: body.optional(|body| Ok(i64::from_le_bytes(body.array()?)))?,
            },
            3 => Self::TrustList {
                issuer: body.array()?,
                subject: body.array()?,
                svn: i64::from_le_bytes(body.array()?),
            },
            4 => Self::Layer { root: body.array()? },
            5 => {
                let container = body.array()?;
                let mut layers = Vec::new();
                while !body.is_empty() {
                    if layers.len() == MAX_ROOTFS_LAYERS {
                        return Err(DecodeError::TooMany("layers of a root file system"));
                    }
                    layers.push(body.array()?);
                }
                Self::Rootfs { container, layers }
            }
            6 => Self::RootfsRemoved { container: body.array()? },
            7 => Self::Create {
                container: body.array()?,
                command: body.array()?,
                sandbox: body.flag()?,
                privileged: body.flag()?,
            },
            8 => Self::Start { container: body.array()? },
            9 => Self::Exec {
                container: body.array()?,
                command: body.array()?,
            },
            10 => Self::External { command: body.array()? },
            11 => Self::Signal {
                container: body.array()?,
                signal: i32::from_le_bytes(body.array()?),
                receiver: match body.array()? {
                    [0] => Receiver::Init,
                    [1] => Receiver::Exec,
                    [2] => Receiver::All,
                    _ => return Err(DecodeError::Value("receiver of a signal")),
                },
            },
            12 => Self::End { container: body.array()? },
            13 => Self::Remove { container: body.array()? },
            14 => {
                let subject = body.optional(Reader::array)?;
                let name = str::from_utf8(body.rest()).ok().and_then(Point::named);
                let point = name.ok_or(DecodeError::Value("name of an enforcement point"))?;
                Self::Other { point, subject }
            }
            15 => Self::Outcome {
                of: u64::from_le_bytes(body.array()?),
                done: body.flag()?,
            },
            16 => Self::Exit {
                of: u64::from_le_bytes(body.array()?),
                status: u32::from_le_bytes(body.array()?),
            },
            17 => Self::PowerOff,
            other => return Err(DecodeError::Kind(other)),
        };
        body.end()?;
        Ok(entry)
    }

    /// The bytes that the chain covers.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.write(&mut out);
        out.into_bytes()
    }
}
