//! The seccomp profile of a spec.

use agent_protocol::limits::{SECCOMP_CONDITIONS, SECCOMP_RULES};
use serde::{Deserialize, Serialize};

use super::DecodeError;

/// `linux.seccomp`, fields in the order of the Go structure whose JSON form policies hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub architectures: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub flags: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub syscalls: Vec<Syscall>,
}

/// One of `linux.seccomp.syscalls`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Syscall {
    /// Go writes a missing list as null.
    pub names: Option<Vec<String>>,
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub args: Vec<Argument>,
}

/// One of `linux.seccomp.syscalls.args`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    #[serde(default)]
    pub index: u64,
    #[serde(default)]
    pub value: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    #[serde(default)]
    pub op: String,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Profile {
    /// Refuses what the guest cannot honour.
    pub fn check(&self) -> Result<(), DecodeError> {
        let rules = &self.syscalls;
        let names = rules.iter().flat_map(|rule| &rule.names).map(Vec::len).sum::<usize>();
        let lists = rules.len() > SECCOMP_RULES || names > SECCOMP_RULES || self.architectures.len() > 32 || self.flags.len() > 32;
        if lists || rules.iter().any(|rule| rule.args.len() > SECCOMP_CONDITIONS) {
            return Err(DecodeError::Spec {
                field: "linux.seccomp",
                reason: "it is too long",
            });
        }
        let notifies = |action: &str| action == "SCMP_ACT_NOTIFY";
        if !self.listener_path.is_empty() || notifies(&self.default_action) || self.syscalls.iter().any(|call| notifies(&call.action)) {
            return Err(DecodeError::Spec {
                field: "linux.seccomp",
                reason: "the guest has no listener for it",
            });
        }
        Ok(())
    }
}

/// SHA-256 in hex of the profile as policies carry it; empty without a profile.
pub fn digest(profile: Option<&Profile>) -> String {
    let Some(profile) = profile else { return String::new() };
    // A profile is a document of the right shape, so neither step fails; if one did, the text is no digest of anything.
    let document = serde_json::to_vec(profile).unwrap_or_default();
    policy::seccomp_digest(&document).unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(json: &str) -> Profile {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_hosts_document() {
        let document = r#"{"syscalls":[{"args":[{"op":"SCMP_CMP_EQ","value":40,"index":0}],"action":"SCMP_ACT_ERRNO",
            "names":["socket"],"errnoRet":1}],"flags":null,"architectures":["SCMP_ARCH_X86_64"],"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let expected = policy::seccomp_digest(document.as_bytes()).unwrap();
        assert_eq!(digest(Some(&profile(document))), expected);
        assert_eq!(digest(None), "");
    }

    #[test]
    fn endless_profiles_are_refused() {
        let rule = |names: usize, args: usize| Profile {
            syscalls: vec![Syscall {
                names: Some(vec!["read".to_owned(); names]),
                args: vec![Argument::default(); args],
                ..Syscall::default()
            }],
            ..Profile::default()
        };
        assert!(rule(SECCOMP_RULES, SECCOMP_CONDITIONS).check().is_ok());
        assert!(rule(SECCOMP_RULES + 1, 0).check().is_err());
        assert!(rule(1, SECCOMP_CONDITIONS + 1).check().is_err());
    }

    #[test]
    fn listeners_are_refused() {
        assert!(profile(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).check().is_err());
        assert!(
            profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#)
                .check()
                .is_err()
        );
        assert!(profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).check().is_ok());
    }
}
