//! Digests of seccomp profiles: SHA-256 of the profile as hcsshim's tool serialises it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::denied::escape_json;

/// The text is not an OCI seccomp profile.
#[derive(Debug, Error)]
#[error("not an OCI seccomp profile")]
pub struct SeccompError(#[from] serde_json::Error);

/// `linux.seccomp` of an OCI spec; the digest depends on the order of fields.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u64>,
    #[serde(default, skip_serializing_if = "no_items")]
    architectures: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "no_items")]
    flags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    listener_path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    listener_metadata: String,
    #[serde(default, skip_serializing_if = "no_items")]
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u64>,
    #[serde(default, skip_serializing_if = "no_items")]
    args: Option<Vec<Argument>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    value: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    value_two: u64,
    #[serde(default)]
    op: String,
}

fn no_items<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The digest of a profile (JSON of `linux.seccomp`) in lower-case hex, as `seccomp_profile_sha256` of policies.
///
/// # Errors
/// The text is not JSON of that form.
pub fn seccomp_digest(profile: &[u8]) -> Result<String, SeccompError> {
    // serde would accept a list as the fields in order.
    let profile: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(profile)?;
    let profile: Profile = serde_json::from_value(profile.into())?;
    let text = escape_json(&serde_json::to_string(&profile)?);
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_over_the_canonical_form() {
        let spread = br#"{ "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": ["read"], "args": []}], "flags": [],
                           "defaultErrnoRet": 1, "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"] }"#;
        let canonical = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;
        assert_eq!(seccomp_digest(spread).unwrap(), hex::encode(Sha256::digest(canonical)));
    }

    #[test]
    fn another_profile_has_another_digest() {
        let allow = seccomp_digest(br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        assert_ne!(allow, seccomp_digest(br#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap());
        assert!(seccomp_digest(b"[]").is_err());
    }
}
