//! How the acts of each enforcement point are logged.

use permit_log::{Digest, Entry, Point, Receiver, command_digest, text_digest};
use policy::{
    ContainerId,
    action::{
        Action, AttestationReport, ConfineContainer, CreateContainer, DumpStacks, ExecExternal, ExecInContainer, GetProperties,
        GuestNetwork, HostNetwork, LoadFragment, LoadTransparencyTrustList, MountBlockdev, MountDevice, PauseContainer, Plan9Mount,
        Plan9Unmount, PodFiles, PortForward, PullImage, RuntimeLogging, RwMountDevice, RwUnmountDevice, ScratchMount, ScratchUnmount,
        SignalContainerProcess, UnmountBlockdev, UnmountDevice, UpdateContainer,
    },
};

/// An action that says all that the log needs. For the others the acting function names the entry ([`super::Judge::enforce_as`]).
pub trait Recorded: Action {
    /// The entry.
    fn entry(&self) -> Entry;
}

/// A container's id in the log.
pub fn id(container: &ContainerId) -> Digest {
    let mut id = [0; 32];
    // An id always is 64 hex digits.
    let _ = hex::decode_to_slice(container.as_hex(), &mut id);
    id
}

/// A paused container goes on. No policy judges this, since it takes back what one allowed.
pub fn resumed(container: &ContainerId) -> Entry {
    const POINT: Point = match Point::named("resume_container") {
        Some(point) => point,
        None => panic!("the log has no word for a resumption"),
    };
    Entry::Other {
        point: POINT,
        subject: Some(id(container)),
    }
}

fn other<A: Action>(subject: Option<Digest>) -> Entry {
    let point = const {
        match Point::named(A::POINT) {
            Some(point) => point,
            None => panic!("the log has no word for this enforcement point"),
        }
    };
    Entry::Other { point, subject }
}

macro_rules! recorded {
    ($($action:ty: |$it:ident| $entry:expr;)*) => {$(
        impl Recorded for $action {
            fn entry(&self) -> Entry {
                let $it = self;
                $entry
            }
        }
    )*};
}

recorded! {
    MountDevice: |it| Entry::Layer { root: it.device_hash.bytes().unwrap_or_default() };
    UnmountDevice: |it| other::<Self>(Some(text_digest(&it.unmount_target)));
    RwMountDevice: |it| other::<Self>(Some(text_digest(&it.target)));
    RwUnmountDevice: |it| other::<Self>(Some(text_digest(&it.unmount_target)));
    ScratchMount: |it| other::<Self>(Some(text_digest(&it.target)));
    ScratchUnmount: |it| other::<Self>(Some(text_digest(&it.unmount_target)));
    Plan9Mount: |it| other::<Self>(Some(text_digest(&it.target)));
    Plan9Unmount: |it| other::<Self>(Some(text_digest(&it.unmount_target)));
    MountBlockdev: |it| other::<Self>(Some(text_digest(&it.target)));
    UnmountBlockdev: |it| other::<Self>(Some(text_digest(&it.unmount_target)));
    ConfineContainer: |it| other::<Self>(Some(id(&it.container_id)));
    PauseContainer: |it| other::<Self>(Some(id(&it.container_id)));
    UpdateContainer: |it| other::<Self>(Some(id(&it.container_id)));
    PodFiles: |it| other::<Self>(Some(id(&it.sandbox_id)));
    PortForward: |it| other::<Self>(Some(id(&it.container_id)));
    PullImage: |it| other::<Self>(Some(text_digest(&it.image)));
    AttestationReport: |_it| other::<Self>(None);
    HostNetwork: |_it| other::<Self>(None);
    GuestNetwork: |_it| other::<Self>(None);
    DumpStacks: |_it| other::<Self>(None);
    GetProperties: |_it| other::<Self>(None);
    RuntimeLogging: |_it| other::<Self>(None);
    LoadFragment: |it| Entry::Fragment {
        issuer: text_digest(&it.issuer),
        feed: text_digest(&it.feed),
        text: text_digest(&it.text),
        svn: it.header_svn,
    };
    LoadTransparencyTrustList: |it| Entry::TrustList {
        issuer: text_digest(&it.issuer),
        subject: text_digest(&it.subject),
        svn: it.svn,
    };
    CreateContainer: |it| Entry::Create {
        container: id(&it.container_id),
        command: command_digest(&it.arg_list),
        sandbox: it.is_sandbox_container,
        privileged: it.privileged,
    };
    ExecInContainer: |it| Entry::Exec {
        container: id(&it.container_id),
        command: command_digest(&it.arg_list),
    };
    ExecExternal: |it| Entry::External { command: command_digest(&it.arg_list) };
    SignalContainerProcess: |it| Entry::Signal {
        container: id(&it.container_id),
        signal: it.signal,
        receiver: if it.is_init_process { Receiver::Init } else { Receiver::Exec },
    };
}
