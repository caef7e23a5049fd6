//! The seccomp profile of a spec.

use agent_protocol::limits::{SECCOMP_CONDITIONS, SECCOMP_RULES};
use launcher_protocol::Profile;

use super::Refused;

/// Refuses what the guest cannot apply.
pub fn check(profile: &Profile) -> Result<(), Refused> {
    let refuse = |reason| {
        Err(Refused {
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

#[cfg(test)]
mod tests {
    use super::*;
    use launcher_protocol::{Argument, Syscall};

    fn profile(json: &str) -> Profile {
        serde_json::from_str(json).unwrap()
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
