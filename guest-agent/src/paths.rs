//! Every path of the guest; none of them comes from the host.
//!
//! Policies match the first group (`/run/gcs`, `/run/mounts`), so its paths are hcsshim's. The second group is ours.

use std::path::PathBuf;

use launcher_protocol::{BUNDLES, STATE_ROOT};
use policy::ContainerId;

/// The launcher in the initramfs; removed once the guest is prepared.
pub const LAUNCHER: &str = "/bin/casemate-launcher";
/// The puller in the initramfs, packed.
pub const PULLER: &str = "/bin/casemate-puller.gz";
/// The pause program in the initramfs.
pub const PAUSE: &str = "/bin/casemate-pause";
/// Parent of every container's cgroup, relative to the hierarchy's root.
pub const CGROUP_PARENT: &str = "casemate";

/// Stands for the guest itself where a container would have its id.
pub fn guest() -> ContainerId {
    ContainerId::new(agent_protocol::GUEST_ID)
}

/// Mount point of a layer.
pub fn layer(slot: u32) -> String {
    format!("/run/mounts/scsi/m{slot}")
}

/// Directory of a container; for the sandbox also the mount point of the scratch.
pub fn container(id: &ContainerId) -> String {
    format!("/run/gcs/c/{}", id.as_hex())
}

/// Root file system of a container.
pub fn rootfs(id: &ContainerId) -> String {
    format!("/run/gcs/c/{}/rootfs", id.as_hex())
}

/// Directory on the scratch that holds the upper and work directories of a container's overlay.
pub fn scratch(sandbox: &ContainerId, container: &ContainerId) -> String {
    format!("/run/gcs/c/{}/scratch/{}", sandbox.as_hex(), container.as_hex())
}

/// Mount point of a directory that the host shares with a container.
pub fn share(container: &ContainerId, share: u32) -> String {
    format!("/run/gcs/c/{}/mounts/m{share}", container.as_hex())
}

/// Mount point of a host disk, if one could be attached.
pub fn disk(slot: u32) -> String {
    format!("/run/mounts/block/b{slot}")
}

/// Directory that `sandbox://` in a mount source stands for.
pub fn sandbox_mounts(sandbox: &ContainerId) -> String {
    format!("/run/gcs/c/{}/sandboxMounts", sandbox.as_hex())
}

/// Directory that `hugepages://` in a mount source stands for.
pub fn huge_pages(sandbox: &ContainerId) -> String {
    format!("/run/gcs/c/{}/hugepages", sandbox.as_hex())
}

/// The name by which policies know a file of the pod.
pub fn pod_source(sandbox: &ContainerId, name: &str) -> String {
    format!("/run/gcs/c/{}/{name}", sandbox.as_hex())
}

/// Directory of the files of a pod; in memory, unreachable for containers.
pub fn pod_files(sandbox: &ContainerId) -> String {
    format!("/run/casemate/pod/{}", sandbox.as_hex())
}

/// Where a file of the pod is.
pub fn pod_file(sandbox: &ContainerId, name: &str) -> String {
    format!("{}/{name}", pod_files(sandbox))
}

/// Bundle of a container for the launcher; in memory, unreachable for containers.
pub fn bundle(id: &ContainerId) -> PathBuf {
    PathBuf::from(BUNDLES).join(id.as_hex())
}

/// Where the sources of a container's bind mounts are while it is created.
pub fn staged_sources(id: &ContainerId) -> PathBuf {
    PathBuf::from("/run/casemate/sources").join(id.as_hex())
}

/// Where libcontainer keeps a container's state.
pub fn runtime_state(id: &ContainerId) -> PathBuf {
    PathBuf::from(STATE_ROOT).join(id.as_hex())
}

/// A container's cgroup, relative to the hierarchy's root.
pub fn cgroup(id: &ContainerId) -> String {
    format!("/{CGROUP_PARENT}/{}", id.as_hex())
}
