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
    /// For `/dev/shm`: a directory, whose file system has the size that the pod's gets.
    pub shm: Option<PathBuf>,
}

impl FileSources {
    fn of(&mut self, destination: &Path) -> Option<&mut Option<PathBuf>> {
        match destination.to_str()? {
            "/etc/hosts" => Some(&mut self.hosts),
            "/etc/hostname" => Some(&mut self.hostname),
            "/etc/resolv.conf" => Some(&mut self.resolv_conf),
            "/dev/shm" => Some(&mut self.shm),
            _ => None,
        }
    }
}

impl Mount {
    /// Whether it binds a file of the host where each container of a pod has the pod's own.
    pub fn is_of_pod(&self) -> bool {
        self.kind == "bind" && self.source.is_absolute() && FileSources::default().of(&self.destination).is_some()
    }
}

/// The files among `mounts`.
pub fn files(mounts: &[Mount]) -> FileSources {
    let mut files = FileSources::default();
    for mount in mounts.iter().filter(|mount| mount.is_of_pod()) {
        if let Some(source) = files.of(&mount.destination) {
            *source = Some(mount.source.clone());
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
        let found = files(&[
            mount("bind", "/pods/x/etc-hosts", "/etc/hosts"),
            mount("tmpfs", "shm", "/dev/shm"),
            mount("bind", "sandbox:///resolv", "/etc/resolv.conf"),
            mount("bind", "/srv", "/data"),
        ]);
        let expected = FileSources {
            hosts: Some("/pods/x/etc-hosts".into()),
            ..FileSources::default()
        };
        assert_eq!(found, expected);
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
