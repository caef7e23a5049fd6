//! Points of Windows guests: `mount_cims`, `registry_changes`, `log_provider`. Linux guests never enforce them; tools do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Action, Subject};
use crate::ids::ContainerId;
use crate::verdict::{Answer, Verdict, go_type};

/// Mounts the merged CIM (composite image) of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountCims {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Digests of its layers, top layer first.
    pub layer_hashes: Vec<String>,
    /// Digests of the mounted CIM.
    pub mounted_cim: Vec<String>,
}

impl Action for MountCims {
    const POINT: &'static str = "mount_cims";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}

/// Changes the registry of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryChanges {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The changes, as the host sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_changes: Option<Value>,
}

impl Action for RegistryChanges {
    const POINT: &'static str = "registry_changes";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}

/// Forwards the events of log providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogProvider {
    /// Names of the providers.
    pub providers: Vec<String>,
}

impl Action for LogProvider {
    const POINT: &'static str = "log_provider";
    type Verdict = ProvidersVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            env: Some(&self.providers),
            ..Subject::default()
        }
    }
}

/// Log providers that the policy keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidersVerdict {
    /// Names, in the order of the request.
    pub providers: Vec<String>,
}

impl Verdict for ProvidersVerdict {
    fn read(answer: &Answer<'_>, subject: &Subject<'_>) -> Result<Self, String> {
        let asked = subject.env.unwrap_or_default();
        let kept = match answer.result.get("providers_to_keep") {
            None | Some(Value::Null) => return Ok(Self { providers: asked.to_vec() }),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return Err(format!(
                    "policy returned incorrect type for 'providers_to_keep', expected []interface{{}}, received {}",
                    go_type(other)
                ));
            }
        };
        if let Some(wrong) = kept.iter().find(|entry| !entry.is_string()) {
            return Err(format!(
                "members of providers_to_keep from policy must be strings, received {}",
                go_type(wrong)
            ));
        }
        let providers = asked.iter().filter(|name| kept.iter().any(|kept| kept == name.as_str())).cloned();
        Ok(Self {
            providers: providers.collect(),
        })
    }
}
