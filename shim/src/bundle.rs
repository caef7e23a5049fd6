//! What the shim reads of a bundle: few fields of `config.json`, and the sandbox that a container belongs to.
//!
//! The document goes to the agent unchanged, except for a policy and fragments in its annotations, which the agent has
//! already and which could make the document longer than it accepts, and for mounts of the pod's files ([`pod`]), which the agent makes
//! itself.

mod pod;

pub use pod::{FileSources, Netns, ShmSize};

use crate::{fragments, policy_text::ANNOTATIONS};
use agent_protocol::limits::{POLICY_BYTES, SPEC_BYTES};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// CRI: `sandbox` or `container`.
const CRI_TYPE: &str = "io.kubernetes.cri.container-type";
/// CRI: the sandbox a container belongs to.
const CRI_SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
/// containerd's own grouping without CRI.
const GROUP: &str = "io.containerd.runc.v2.group";
/// The OCI document of a bundle.
const DOCUMENT: &str = "config.json";
/// Longest `config.json`: what the agent accepts, the longest policy as base64 under both of its names, and fragments.
const SPEC_MAX_BYTES: u64 = (SPEC_BYTES + 2 * (POLICY_BYTES * 4 / 3 + 4) + fragments::ANNOTATION_BYTES) as u64;

/// The part of an OCI runtime specification that concerns the host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    annotations: BTreeMap<String, String>,
    linux: Linux,
    mounts: Vec<pod::Mount>,
    process: Option<Init>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Init {
    oom_score_adj: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
    namespaces: Vec<pod::Namespace>,
}

/// File in a bundle that names the sandbox's state directory: `delete` does not get the runtime options, whose configuration
/// may have named another root.
const STATE_FILE: &str = "casemate-state";

/// Writes the path of the sandbox's state directory into the bundle `dir`.
///
/// # Errors
/// When the file cannot be written.
pub fn note_state(dir: &Path, state: &Path) -> io::Result<()> {
    fs::write(dir.join(STATE_FILE), state.as_os_str().as_bytes())
}

/// The path that [`note_state`] wrote into the bundle `dir`.
pub fn noted_state(dir: &Path) -> Option<PathBuf> {
    let path = fs::read(dir.join(STATE_FILE)).ok()?;
    Some(PathBuf::from(OsString::from_vec(path))).filter(|path| path.is_absolute())
}

/// A container's bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    document: Vec<u8>,
    spec: Spec,
}

/// Which sandbox a container is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The sandbox's id.
    pub id: String,
    /// What the container is in it.
    pub role: Role,
}

/// What a container is in its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The sandbox's own container: CRI's sandbox container, or the only one (`ctr run`). The VM ends with it.
    Sandbox,
    /// A container in a CRI sandbox, which must be running.
    Member,
    /// A container of a group without CRI; the first one boots the VM.
    Grouped,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// `config.json` cannot be read.
    #[error("cannot read config.json of the bundle")]
    Read(#[source] io::Error),
    /// The bundle cannot be written to.
    #[error("cannot write the path of the state directory into the bundle")]
    Note(#[source] io::Error),
    /// The document of a sandbox without a container cannot be written.
    #[error("cannot write the document and the files of the pod into the bundle")]
    Write(#[source] io::Error),
    /// `config.json` is larger than the agent accepts.
    #[error("config.json has {0} bytes; the agent takes {SPEC_BYTES} besides the policy")]
    Long(u64),
    /// A namespace of the host is asked for.
    #[error(
        "a container cannot be in the host's {0} namespace: it runs in a VM of its own (hostNetwork, hostPID and hostIPC need another RuntimeClass)"
    )]
    HostNamespace(&'static str),
    /// `config.json` is not an OCI specification.
    #[error("config.json of the bundle is not an OCI specification")]
    Json(#[source] serde_json::Error),
}

impl Bundle {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn read(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(DOCUMENT);
        let length = fs::metadata(&path).map_err(BundleError::Read)?.len();
        if length > SPEC_MAX_BYTES {
            return Err(BundleError::Long(length));
        }
        let document = fs::read(path).map_err(BundleError::Read)?;
        let spec = serde_json::from_slice(&document).map_err(BundleError::Json)?;
        Ok(Self { document, spec })
    }

    /// Whether the bundle in `dir` has a document; what cannot be looked at counts as there.
    pub fn has_document(dir: &Path) -> bool {
        dir.join(DOCUMENT).try_exists().unwrap_or(true)
    }

    /// The sandbox that container `id` of the bundle in `dir` belongs to. A sandbox of the Sandbox API has no document before it is
    /// created.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn group_in(dir: &Path, id: &str) -> Result<Group, BundleError> {
        match Self::read(dir) {
            Ok(bundle) => Ok(bundle.group(id)),
            Err(BundleError::Read(_)) if dir.is_dir() && !Self::has_document(dir) => Ok(Group {
                id: id.to_owned(),
                role: Role::Sandbox,
            }),
            Err(error) => Err(error),
        }
    }

    /// The document for the agent.
    ///
    /// # Errors
    /// When it is too long without the policy.
    pub fn for_agent(&self) -> Result<Vec<u8>, BundleError> {
        if !self.spec.annotations.keys().any(|key| was_sent(key)) && !self.spec.mounts.iter().any(pod::Mount::is_of_pod) {
            return fitting(self.document.clone());
        }
        let mut document: serde_json::Value = serde_json::from_slice(&self.document).map_err(BundleError::Json)?;
        if let Some(annotations) = document.get_mut("annotations").and_then(|a| a.as_object_mut()) {
            annotations.retain(|key, _| !was_sent(key));
        }
        if let Some(mounts) = document.get_mut("mounts").and_then(|m| m.as_array_mut()) {
            // The types parsed the same document, so the lists are equally long.
            let mut entries = self.spec.mounts.iter();
            mounts.retain(|_| !entries.next().is_some_and(pod::Mount::is_of_pod));
        }
        fitting(serde_json::to_vec(&document).map_err(BundleError::Json)?)
    }

    /// Annotations of the container.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.spec.annotations
    }

    /// `linux.cgroupsPath`; empty when there is none.
    pub fn cgroups_path(&self) -> &str {
        &self.spec.linux.cgroups_path
    }

    /// `process.oomScoreAdj`.
    pub fn oom_score_adj(&self) -> Option<i32> {
        self.spec.process.as_ref().and_then(|process| process.oom_score_adj)
    }

    /// Whether it is the container of a CRI sandbox, which only holds the pod's namespaces.
    pub fn is_pod_sandbox(&self) -> bool {
        self.spec.annotations.get(CRI_TYPE).is_some_and(|kind| kind == "sandbox")
    }

    /// The network namespace of the sandbox.
    ///
    /// # Errors
    /// When it is the host's, and when a CRI sandbox shares another namespace with the host.
    pub fn netns(&self) -> Result<Netns, BundleError> {
        pod::netns(&self.spec.linux.namespaces, self.is_pod_sandbox())
    }

    /// The pod's files that the container is to have.
    pub fn pod_files(&self) -> FileSources {
        pod::files(&self.spec.mounts, self.is_pod_sandbox())
    }

    /// The sandbox that container `id` belongs to.
    pub fn group(&self, id: &str) -> Group {
        let of = |key: &str| self.spec.annotations.get(key).map(String::as_str);
        match (of(CRI_TYPE), of(CRI_SANDBOX), of(GROUP)) {
            (Some("container"), Some(sandbox), _) => Group {
                id: sandbox.to_owned(),
                role: Role::Member,
            },
            (kind, _, Some(group)) if kind != Some("sandbox") && !group.is_empty() && group != id => Group {
                id: group.to_owned(),
                role: Role::Grouped,
            },
            _ => Group {
                id: id.to_owned(),
                role: Role::Sandbox,
            },
        }
    }
}

/// Whether the agent gets an annotation's value by a separate call.
fn was_sent(annotation: &str) -> bool {
    annotation == fragments::ANNOTATION || ANNOTATIONS.contains(&annotation)
}

fn fitting(document: Vec<u8>) -> Result<Vec<u8>, BundleError> {
    if document.len() > SPEC_BYTES {
        Err(BundleError::Long(document.len() as u64))
    } else {
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(json: &str) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), json).unwrap();
        Bundle::read(dir.path()).unwrap()
    }

    #[test]
    fn a_plain_container_is_its_own_sandbox() {
        let b = bundle(r#"{"ociVersion":"1.0.2","process":{"terminal":true,"oomScoreAdj":-997},"linux":{"cgroupsPath":"/default/web"}}"#);
        assert_eq!(
            b.group("web"),
            Group {
                id: "web".into(),
                role: Role::Sandbox
            }
        );
        assert_eq!((b.cgroups_path(), b.oom_score_adj()), ("/default/web", Some(-997)));
        assert_eq!(bundle(r#"{"process":{"oomScoreAdj":null}}"#).oom_score_adj(), None);
    }

    #[test]
    fn cri_names_the_sandbox() {
        let member = bundle(r#"{"annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"pod1"}}"#);
        assert_eq!(
            member.group("c1"),
            Group {
                id: "pod1".into(),
                role: Role::Member
            }
        );
        let sandbox = bundle(r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"pod1"}}"#);
        assert_eq!(
            sandbox.group("pod1"),
            Group {
                id: "pod1".into(),
                role: Role::Sandbox
            }
        );
    }

    #[test]
    fn containers_may_be_grouped_without_cri() {
        let grouped = bundle(r#"{"annotations":{"io.containerd.runc.v2.group":"g"}}"#);
        assert_eq!(
            grouped.group("c1"),
            Group {
                id: "g".into(),
                role: Role::Grouped
            }
        );
        assert_eq!(grouped.group("g").role, Role::Sandbox);
    }

    #[test]
    fn a_document_that_is_not_a_specification_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Bundle::read(dir.path()), Err(BundleError::Read(_))));
        fs::write(dir.path().join("config.json"), "[1]").unwrap();
        assert!(matches!(Bundle::read(dir.path()), Err(BundleError::Json(_))));
    }

    #[test]
    fn the_path_of_the_state_directory_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(noted_state(dir.path()), None);
        note_state(dir.path(), Path::new("/run/elsewhere/ns/web")).unwrap();
        assert_eq!(noted_state(dir.path()), Some("/run/elsewhere/ns/web".into()));
    }

    #[test]
    fn the_agent_makes_the_mounts_of_the_pods_files_itself() {
        let b = bundle(
            r#"{"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/etc/hosts","type":"bind","source":"/var/lib/c/hosts"},
                {"destination":"/data","type":"bind","source":"/srv"},{"destination":"/dev/shm","type":"bind","source":"/run/c/shm"}]}"#,
        );
        let sent: serde_json::Value = serde_json::from_slice(&b.for_agent().unwrap()).unwrap();
        let left: Vec<_> = sent["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["destination"].clone())
            .collect();
        assert_eq!(left, ["/proc", "/data"]);
        assert_eq!(b.pod_files().hosts.as_deref(), Some(Path::new("/var/lib/c/hosts")));
    }

    #[test]
    fn a_policy_is_not_sent_twice() {
        let policy = "A".repeat(SPEC_BYTES);
        let b = bundle(&format!(
            r#"{{"process":{{"args":["sh"]}},"annotations":{{"io.casemate.policy":"{policy}","io.casemate.fragments":"AA==","k":"v"}}}}"#
        ));
        let sent: serde_json::Value = serde_json::from_slice(&b.for_agent().unwrap()).unwrap();
        assert_eq!(sent, serde_json::json!({"process": {"args": ["sh"]}, "annotations": {"k": "v"}}));
        let plain = r#"{ "annotations": {"k":"v"} }"#;
        assert_eq!(bundle(plain).for_agent().unwrap(), plain.as_bytes());
        let long = bundle(&format!(r#"{{"annotations":{{"k":"{policy}"}}}}"#));
        assert!(matches!(long.for_agent(), Err(BundleError::Long(_))));
    }
}
