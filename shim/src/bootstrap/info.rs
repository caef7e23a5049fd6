//! `-v` and `-info`: what this runtime is, without booting anything.

use super::{BootstrapError, RUNTIME_NAME};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message, well_known_types::any::Any};
use std::io::{self, Write};

/// OCI runtime features in the form of the specification's `features.md`: what containers of this runtime can request.
///
/// containerd and CRI read from it whether they may request user namespaces, idmapped and recursively read-only mounts
/// (none of them), and which seccomp actions are known. Hooks are refused by the guest, so none is listed.
const FEATURES: &str = r#"{
"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0","hooks":[],
"mountOptions":["async","atime","bind","defaults","dev","diratime","dirsync","exec","iversion","lazytime","loud","mand","noatime","nodev","nodiratime","noexec","nolazytime","nomand","norelatime","nostrictatime","nosuid","private","rbind","relatime","remount","ro","rprivate","rshared","rslave","rw","shared","slave","strictatime","suid","sync"],
"linux":{"namespaces":["cgroup","ipc","mount","network","pid","uts"],
"cgroup":{"v1":false,"v2":true,"systemd":false,"systemdUser":false,"rdma":false},
"seccomp":{"enabled":true,
"actions":["SCMP_ACT_ALLOW","SCMP_ACT_ERRNO","SCMP_ACT_KILL","SCMP_ACT_KILL_PROCESS","SCMP_ACT_KILL_THREAD","SCMP_ACT_LOG","SCMP_ACT_TRACE","SCMP_ACT_TRAP"],
"operators":["SCMP_CMP_EQ","SCMP_CMP_GE","SCMP_CMP_GT","SCMP_CMP_LE","SCMP_CMP_LT","SCMP_CMP_MASKED_EQ","SCMP_CMP_NE"],
"archs":["SCMP_ARCH_X32","SCMP_ARCH_X86","SCMP_ARCH_X86_64"]},
"apparmor":{"enabled":false},"selinux":{"enabled":false},"intelRdt":{"enabled":false},
"mountExtensions":{"idmap":{"enabled":false}}}}"#;
/// Type under which containerd decodes [`FEATURES`].
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints name and version as containerd's own shims do.
///
/// # Errors
/// When standard output is closed.
pub fn version() -> Result<(), BootstrapError> {
    let text = format!("containerd-shim-casemate-v2:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| BootstrapError::Io("print the version", e))
}

/// Prints a `containerd.types.RuntimeInfo`.
///
/// # Errors
/// When standard output is closed.
pub fn info() -> Result<(), BootstrapError> {
    let bytes = runtime_info().write_to_bytes().map_err(BootstrapError::Encode)?;
    io::stdout()
        .write_all(&bytes)
        .map_err(|e| BootstrapError::Io("print the runtime's description", e))
}

fn runtime_info() -> RuntimeInfo {
    RuntimeInfo {
        name: RUNTIME_NAME.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
        .into(),
        features: Some(Any {
            type_url: FEATURES_TYPE.to_owned(),
            value: FEATURES.as_bytes().to_vec(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_are_json_of_the_named_type() {
        let info = runtime_info();
        assert_eq!(info.name, RUNTIME_NAME);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert_eq!(features["linux"]["cgroup"]["v2"], true);
        // What CRI would otherwise request: user namespaces, recursively read-only mounts.
        let lists = |list: &serde_json::Value, word: &str| list.as_array().unwrap().iter().any(|entry| entry == word);
        assert!(!lists(&features["linux"]["namespaces"], "user"));
        assert!(!lists(&features["mountOptions"], "rro"));
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], false);
    }
}
