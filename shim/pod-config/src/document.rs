//! The OCI document of a pod's sandbox container, as containerd's own sandbox controller would write it.

use crate::{PodFiles, files::hostname};
use k8s_cri::v1::{LinuxContainerResources, NamespaceMode, PodSandboxConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Score of a pod's sandbox container: it holds the pod together (containerd's `defaultSandboxOOMAdj`).
const OOM_SCORE: i32 = -998;
/// `/dev/shm` of a pod (containerd's `defaultShmSize`).
const SHM_BYTES: u64 = 64 << 20;

/// Where things of the pod are on the host.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The sandbox's id.
    pub id: &'a str,
    /// The pod's network namespace; empty where it has none.
    pub netns: &'a str,
    /// Directory with `hosts`, `hostname` and `resolv.conf`, the last only if the pod has its own.
    pub files: &'a Path,
}

/// The document. The program in it is the pause that the guest brings itself.
pub fn document(config: &PodSandboxConfig, place: Place<'_>) -> Value {
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": ["/pause"],
            "cwd": "/",
            "env": [],
            "user": {"uid": 65535, "gid": 65535},
            "noNewPrivileges": true,
            "oomScoreAdj": OOM_SCORE,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": hostname(config),
        "mounts": mounts(config, place.files),
        "annotations": annotations(config, place.id),
        "linux": {
            "cgroupsPath": cgroups_path(config, place.id),
            "namespaces": namespaces(config, place.netns),
            "sysctl": config.linux.clone().unwrap_or_default().sysctls,
        },
    })
}

fn mounts(config: &PodSandboxConfig, files: &Path) -> Vec<Value> {
    let bind = |destination: &str, source: &Path| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "ro"]});
    let resolv_conf = match PodFiles::of(config).resolv_conf {
        Some(_) => files.join("resolv.conf"),
        None => "/etc/resolv.conf".into(),
    };
    vec![
        bind("/etc/hosts", &files.join("hosts")),
        bind("/etc/hostname", &files.join("hostname")),
        bind("/etc/resolv.conf", &resolv_conf),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", format!("size={SHM_BYTES}")]}),
    ]
}

/// The pod's annotations, and CRI's own, which the pod cannot replace (`pkg/cri/annotations`).
fn annotations(config: &PodSandboxConfig, id: &str) -> Map<String, Value> {
    let mut annotations: Map<String, Value> = config.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut set = |key: &str, value: &str| {
        annotations.insert(format!("io.kubernetes.cri.{key}"), json!(value));
    };
    set("container-type", "sandbox");
    set("sandbox-id", id);
    set("sandbox-log-directory", &config.log_directory);
    if let Some(metadata) = &config.metadata {
        set("sandbox-name", &metadata.name);
        set("sandbox-namespace", &metadata.namespace);
        set("sandbox-uid", &metadata.uid);
    }
    let linux = config.linux.as_ref();
    if let Some(LinuxContainerResources {
        cpu_period,
        cpu_quota,
        cpu_shares,
        memory_limit_in_bytes,
        ..
    }) = linux.and_then(|linux| linux.resources.as_ref())
    {
        set("sandbox-cpu-period", &cpu_period.to_string());
        set("sandbox-cpu-quota", &cpu_quota.to_string());
        set("sandbox-cpu-shares", &cpu_shares.to_string());
        set("sandbox-memory", &memory_limit_in_bytes.to_string());
    }
    annotations
}

/// `getCgroupsPath` of containerd: systemd's notation below a slice.
fn cgroups_path(config: &PodSandboxConfig, id: &str) -> String {
    let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.trim_end_matches('/'));
    match parent.rsplit('/').next() {
        None | Some("") => format!("/k8s.io/{id}"),
        Some(slice) if slice.ends_with(".slice") => format!("{slice}:cri-containerd:{id}"),
        Some(_) => format!("{parent}/{id}"),
    }
}

/// Those that the pod has for itself: one that it shares with the host would be missing.
fn namespaces(config: &PodSandboxConfig, netns: &str) -> Vec<Value> {
    let options = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref()?.namespace_options.as_ref());
    let shared =
        |mode: fn(&k8s_cri::v1::NamespaceOption) -> i32| options.is_some_and(|options| mode(options) == i32::from(NamespaceMode::Node));
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "uts"})];
    if !shared(|options| options.pid) {
        namespaces.push(json!({"type": "pid"}));
    }
    if !shared(|options| options.ipc) {
        namespaces.push(json!({"type": "ipc"}));
    }
    if !shared(|options| options.network) {
        namespaces.push(json!({"type": "network", "path": netns}));
    }
    namespaces
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::{DnsConfig, LinuxPodSandboxConfig, PodSandboxMetadata};

    fn place() -> Place<'static> {
        Place {
            id: "abc",
            netns: "/run/netns/x",
            files: Path::new("/b/pod"),
        }
    }

    fn config(parent: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".to_owned(),
                uid: "u".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            annotations: [("io.casemate.tee", "snp"), ("io.kubernetes.cri.container-type", "container")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: parent.to_owned(),
                sysctls: [("net.core.somaxconn".to_owned(), "9".to_owned())].into(),
                resources: Some(LinuxContainerResources {
                    memory_limit_in_bytes: 1 << 28,
                    cpu_quota: 50_000,
                    cpu_period: 100_000,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_cannot_replace_what_containerd_says_of_it() {
        let document = document(&config("/kubepods/pod1"), place());
        let annotations = &document["annotations"];
        assert_eq!(annotations["io.kubernetes.cri.container-type"], "sandbox");
        assert_eq!(annotations["io.casemate.tee"], "snp");
        assert_eq!(annotations["io.kubernetes.cri.sandbox-memory"], (1_u64 << 28).to_string());
        assert_eq!(document["linux"]["cgroupsPath"], "/kubepods/pod1/abc");
        assert_eq!(document["linux"]["sysctl"]["net.core.somaxconn"], "9");
        assert_eq!(document["hostname"], "web");
    }

    #[test]
    fn a_slice_has_systemds_notation() {
        let path = |parent: &str| cgroups_path(&config(parent), "abc");
        assert_eq!(
            path("/kubepods.slice/kubepods-pod1.slice"),
            "kubepods-pod1.slice:cri-containerd:abc"
        );
        assert_eq!(path(""), "/k8s.io/abc");
        assert_eq!(path("/a/"), "/a/abc");
    }

    #[test]
    fn the_nodes_name_servers_are_the_pods_where_it_names_none() {
        let source = |config: &PodSandboxConfig| document(config, place())["mounts"][2]["source"].clone();
        let mut pod = config("");
        assert_eq!(source(&pod), "/etc/resolv.conf");
        pod.dns_config = Some(DnsConfig {
            servers: vec!["10.0.0.1".to_owned()],
            ..Default::default()
        });
        assert_eq!(source(&pod), "/b/pod/resolv.conf");
    }

    #[test]
    fn a_namespace_of_the_host_is_missing() {
        let kinds = |config: &PodSandboxConfig| -> Vec<String> {
            let namespaces = namespaces(config, "/run/netns/x");
            namespaces.iter().filter_map(|it| it["type"].as_str().map(str::to_owned)).collect()
        };
        let mut pod = config("");
        assert_eq!(kinds(&pod), ["mount", "uts", "pid", "ipc", "network"]);
        let context = pod.linux.get_or_insert_default().security_context.get_or_insert_default();
        context.namespace_options.get_or_insert_default().ipc = NamespaceMode::Node.into();
        assert_eq!(kinds(&pod), ["mount", "uts", "pid", "network"]);
    }
}
