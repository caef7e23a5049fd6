//! A request as OCI documents: the config.json that libcontainer reads, and parts of it for libcontainer's functions.

use std::collections::BTreeMap;

use launcher_protocol::{Capabilities, Container, Device, Mount, Namespace, Process, Profile, Rlimit};
use serde::{Serialize, de::DeserializeOwned};

use crate::sysctl;

/// Version of the OCI runtime specification that the document follows.
const OCI_VERSION: &str = "1.2.0";

/// `config.json` (config.md, config-linux.md) with exactly these fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    oci_version: &'a str,
    root: Root<'a>,
    process: OciProcess<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    hostname: &'a str,
    mounts: Vec<OciMount<'a>>,
    linux: Linux<'a>,
}

#[derive(Serialize)]
struct Root<'a> {
    path: &'a str,
    readonly: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OciProcess<'a> {
    terminal: bool,
    user: OciUser<'a>,
    args: &'a [String],
    env: &'a [String],
    cwd: &'a str,
    capabilities: &'a Capabilities,
    rlimits: &'a [Rlimit],
    /// libcontainer takes `false` as a request to load the profile late, when the privilege to load it is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_new_privileges: bool,
    oom_score_adj: i32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OciUser<'a> {
    uid: u32,
    gid: u32,
    umask: u32,
    additional_gids: &'a [u32],
}

#[derive(Serialize)]
struct OciMount<'a> {
    destination: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'a> {
    namespaces: Vec<OciNamespace<'a>>,
    cgroups_path: &'a str,
    devices: Vec<OciDevice<'a>>,
    sysctl: BTreeMap<&'a str, &'a str>,
    masked_paths: &'a [String],
    readonly_paths: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<&'a Profile>,
}

#[derive(Serialize)]
struct OciNamespace<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OciDevice<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    major: i64,
    minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
}

/// The OCI document of a container, as JSON.
///
/// # Errors
/// serde's errors, for a type whose serialisation fails; none of these does.
pub fn config(container: &Container) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Document {
        oci_version: OCI_VERSION,
        root: Root {
            path: &container.rootfs,
            readonly: container.read_only_root,
        },
        process: process(&container.process),
        hostname: &container.hostname,
        mounts: container.mounts.iter().map(mount).collect(),
        linux: Linux {
            namespaces: container.namespaces.iter().map(namespace).collect(),
            cgroups_path: &container.cgroup,
            devices: container.devices.iter().map(device).collect(),
            sysctl: of_own_namespaces(&container.sysctls),
            masked_paths: &container.masked_paths,
            readonly_paths: &container.readonly_paths,
            seccomp: container.seccomp.as_ref(),
        },
    })
}

/// Those that libcontainer writes; the network's are the launcher's to write.
fn of_own_namespaces(parameters: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let own = parameters.iter().filter(|(name, _)| !sysctl::is_of_network(name));
    own.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn process(process: &Process) -> OciProcess<'_> {
    OciProcess {
        terminal: process.terminal,
        user: OciUser {
            uid: process.user.uid,
            gid: process.user.gid,
            umask: process.user.umask,
            additional_gids: &process.user.additional_gids,
        },
        args: &process.args,
        env: &process.env,
        cwd: &process.cwd,
        capabilities: &process.capabilities,
        rlimits: &process.rlimits,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
    }
}

fn mount(mount: &Mount) -> OciMount<'_> {
    OciMount {
        destination: &mount.destination,
        kind: &mount.kind,
        source: &mount.source,
        options: mount.options.as_deref(),
    }
}

fn namespace(namespace: &Namespace) -> OciNamespace<'_> {
    OciNamespace {
        kind: namespace.kind.name(),
        path: namespace.path.as_deref(),
    }
}

fn device(device: &Device) -> OciDevice<'_> {
    OciDevice {
        path: &device.path,
        kind: &device.kind,
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode,
        uid: device.uid,
        gid: device.gid,
    }
}

/// Converts a value to the OCI type that libcontainer's functions take: both have the same JSON form.
///
/// # Errors
/// The value has a name that this version of the OCI types does not know.
pub fn typed<T: DeserializeOwned>(value: &impl Serialize) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::to_value(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use launcher_protocol::{NamespaceKind, User};
    use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Spec};

    fn container() -> Container {
        Container {
            cgroup: "/casemate/abc".to_owned(),
            rootfs: "/run/gcs/c/abc/rootfs".to_owned(),
            read_only_root: true,
            process: Process {
                args: vec!["sh".to_owned()],
                cwd: "/tmp".to_owned(),
                user: User {
                    uid: 3,
                    umask: 0o22,
                    ..User::default()
                },
                oom_score_adj: -5,
                ..Process::default()
            },
            namespaces: vec![Namespace {
                kind: NamespaceKind::Mount,
                path: None,
            }],
            sysctls: ["net.core.somaxconn", "kernel.sem"]
                .map(|name| (name.to_owned(), "9".to_owned()))
                .into(),
            ..Container::default()
        }
    }

    #[test]
    fn libcontainer_reads_the_request_and_adds_no_defaults() {
        let spec: Spec = serde_json::from_slice(&config(&container()).unwrap()).unwrap();
        let (process, linux) = (spec.process().as_ref().unwrap(), spec.linux().as_ref().unwrap());
        assert_eq!(process.args().as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!((process.user().uid(), process.user().umask()), (3, Some(0o22)));
        assert_eq!((process.oom_score_adj(), process.no_new_privileges()), (Some(-5), None));
        assert!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().is_empty());
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 1);
        assert!(linux.resources().is_none(), "the agent sets the limits");
        assert!(spec.mounts().as_ref().unwrap().is_empty() && spec.hooks().is_none() && spec.hostname().is_none());
        assert!(linux.masked_paths().as_ref().unwrap().is_empty() && linux.seccomp().is_none());
        let parameters: Vec<_> = linux.sysctl().as_ref().unwrap().keys().collect();
        assert_eq!(parameters, ["kernel.sem"], "libcontainer refuses those of the network");
    }

    #[test]
    fn parts_have_the_form_of_oci() {
        let limit = Rlimit {
            kind: "RLIMIT_NOFILE".to_owned(),
            hard: 2,
            soft: 1,
        };
        let limit: PosixRlimit = typed(&limit).unwrap();
        assert_eq!((limit.typ(), limit.hard(), limit.soft()), (PosixRlimitType::RlimitNofile, 2, 1));
        let sets = Capabilities {
            bounding: vec!["CAP_CHOWN".to_owned()],
            ..Capabilities::default()
        };
        let sets: LinuxCapabilities = typed(&sets).unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        let unknown = Capabilities {
            bounding: vec!["CAP_UNHEARD_OF".to_owned()],
            ..Capabilities::default()
        };
        assert!(typed::<LinuxCapabilities>(&unknown).is_err());
    }
}
