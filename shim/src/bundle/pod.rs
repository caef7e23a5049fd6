//! What a bundle says of its pod on the host: the network namespace, and the files that CRI mounts into each of the pod's containers.

use super::BundleError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A mount of the document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mount {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    source: PathBuf,
    options: Vec<String>,
}

/// A namespace of the document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
}

/// The network namespace of a sandbox on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    /// It exists: CRI's, filled before the sandbox is created.
    Existing(PathBuf),
    /// It is the VMM's own, which may be filled until the container is started (`ctr run --cni`, Docker).
    OfVmm,
}

/// Where the host has the files of a pod; `None` for what the container is not to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSources {
    /// For `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// For `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// For `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// For `/dev/shm`.
    pub shm: Option<ShmSize>,
}

/// The size of a pod's `/dev/shm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShmSize {
    /// That of the file system of a directory of the host.
    Of(PathBuf),
    /// In bytes.
    Bytes(u64),
}

impl FileSources {
    /// Takes the source of a mount; false where it is at none of the places.
    fn take(&mut self, destination: &Path, source: &Path) -> bool {
        let source = source.to_owned();
        match destination.to_str() {
            Some("/etc/hosts") => self.hosts = Some(source),
            Some("/etc/hostname") => self.hostname = Some(source),
            Some("/etc/resolv.conf") => self.resolv_conf = Some(source),
            Some(SHM) => self.shm = Some(ShmSize::Of(source)),
            _ => return false,
        }
        true
    }
}

/// Place of the pod's shared memory.
const SHM: &str = "/dev/shm";

impl Mount {
    /// Whether it binds a file of the host where each container of a pod has the pod's own.
    pub fn is_of_pod(&self) -> bool {
        self.kind == "bind" && self.source.is_absolute() && FileSources::default().take(&self.destination, &self.source)
    }

    /// The size of the shared memory that it makes.
    fn shm_bytes(&self) -> Option<u64> {
        let size = self.options.iter().find_map(|option| option.strip_prefix("size="));
        let size = size.filter(|_| self.kind == "tmpfs" && self.destination == Path::new(SHM));
        size?.parse().ok()
    }
}

/// The files among `mounts`. A sandbox's own shared memory is its pod's.
pub fn files(mounts: &[Mount], of_sandbox: bool) -> FileSources {
    let mut files = FileSources::default();
    for mount in mounts {
        if mount.is_of_pod() {
            files.take(&mount.destination, &mount.source);
        } else if let Some(bytes) = mount.shm_bytes().filter(|_| of_sandbox) {
            files.shm = Some(ShmSize::Bytes(bytes));
        }
    }
    files
}

/// The network namespace among `namespaces`. A sandbox of CRI also says by a missing one that it is to share the host's.
pub fn netns(namespaces: &[Namespace], of_pod: bool) -> Result<Netns, BundleError> {
    let find = |kind: &str| namespaces.iter().find(|namespace| namespace.kind == kind);
    for kind in ["pid", "ipc"] {
        if of_pod && find(kind).is_none() {
            return Err(BundleError::HostNamespace(kind));
        }
    }
    match find("network") {
        None => Err(BundleError::HostNamespace("network")),
        Some(own) if own.path.as_os_str().is_empty() => Ok(Netns::OfVmm),
        Some(existing) => Ok(Netns::Existing(existing.path.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, destination: &str) -> Mount {
        Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: vec!["nosuid".into(), "size=4096".into()],
        }
    }

    fn namespaces(kinds: &[(&str, &str)]) -> Vec<Namespace> {
        let of = |(kind, path): &(&str, &str)| Namespace {
            kind: (*kind).into(),
            path: path.into(),
        };
        kinds.iter().map(of).collect()
    }

    #[test]
    fn only_binds_of_the_host_are_the_pods_files() {
        let mounts = [
            mount("bind", "/pods/x/etc-hosts", "/etc/hosts"),
            mount("tmpfs", "shm", "/dev/shm"),
            mount("bind", "sandbox:///resolv", "/etc/resolv.conf"),
            mount("bind", "/srv", "/data"),
        ];
        let mut expected = FileSources {
            hosts: Some("/pods/x/etc-hosts".into()),
            ..FileSources::default()
        };
        assert_eq!(files(&mounts, false), expected);
        // Of a sandbox without a container.
        expected.shm = Some(ShmSize::Bytes(4096));
        assert_eq!(files(&mounts, true), expected);
    }

    #[test]
    fn the_hosts_namespaces_are_refused_by_name() {
        let all = [("pid", ""), ("ipc", ""), ("network", "/run/netns/x")];
        assert_eq!(netns(&namespaces(&all), true).unwrap(), Netns::Existing("/run/netns/x".into()));
        assert_eq!(netns(&namespaces(&[("network", "")]), false).unwrap(), Netns::OfVmm);
        for missing in ["pid", "ipc", "network"] {
            let rest: Vec<_> = all.iter().copied().filter(|(kind, _)| *kind != missing).collect();
            let Err(BundleError::HostNamespace(named)) = netns(&namespaces(&rest), true) else {
                panic!("{missing} was not refused")
            };
            assert_eq!(named, missing);
        }
        assert!(netns(&[], false).is_err());
    }
}
