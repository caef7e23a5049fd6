//! The seccomp profile of a spec.

use agent_protocol::limits::{SECCOMP_CONDITIONS, SECCOMP_RULES};
use launcher_protocol::Profile;

use super::DecodeError;

/// Refuses what the guest cannot apply.
pub fn check(profile: &Profile) -> Result<(), DecodeError> {
    let refuse = |reason| {
        Err(DecodeError::Spec {
            field: "linux.seccomp",
            reason,
        })
    };
    let rules = &profile.syscalls;
    let names = rules.iter().flat_map(|rule| &rule.names).map(Vec::len).sum::<usize>();
    let lists = rules.len() > SECCOMP_RULES || names > SECCOMP_RULES || profile.architectures.len() > 32 || profile.flags.len() > 32;
    if lists || rules.iter().any(|rule| rule.args.len() > SECCOMP_CONDITIONS) {
        return refuse("it is too long");
    }
    let notifies = |action: &str| action == "SCMP_ACT_NOTIFY";
    if !profile.listener_path.is_empty() || notifies(&profile.default_action) || rules.iter().any(|rule| notifies(&rule.action)) {
        return refuse("the guest has no listener for it");
    }
    Ok(())
}

/// SHA-256 in hex of the profile as policies carry it; empty without a profile.
pub fn digest(profile: Option<&Profile>) -> String {
    let Some(profile) = profile else { return String::new() };
    // A profile was decoded from JSON, so neither step fails; if one did, the text would match no digest.
    let document = serde_json::to_vec(profile).unwrap_or_default();
    policy::seccomp_digest(&document).unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use launcher_protocol::{Argument, Syscall};

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
    fn unbounded_profiles_are_refused() {
        let rule = |names: usize, args: usize| Profile {
            syscalls: vec![Syscall {
                names: Some(vec!["read".to_owned(); names]),
                args: vec![Argument::default(); args],
                ..Syscall::default()
            }],
            ..Profile::default()
        };
        assert!(check(&rule(SECCOMP_RULES, SECCOMP_CONDITIONS)).is_ok());
        assert!(check(&rule(SECCOMP_RULES + 1, 0)).is_err());
        assert!(check(&rule(1, SECCOMP_CONDITIONS + 1)).is_err());
    }

    #[test]
    fn listeners_are_refused() {
        assert!(check(&profile(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#)).is_err());
        assert!(check(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#)).is_err());
        assert!(check(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)).is_ok());
    }
}
