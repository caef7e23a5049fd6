//! The digest of the seccomp profile of a spec.

use launcher_protocol::Profile;

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
}
