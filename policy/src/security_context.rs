//! The security context directory of a container: the policy, and reference values by which relying parties verify the guest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Environment variable with the path in the container of the directory with the [`SecurityContextFiles`].
pub const SECURITY_CONTEXT_VARIABLE: &str = "UVM_SECURITY_CONTEXT_DIR";
/// Prefix of the directory's name in the container's root directory; random hex digits follow.
pub const SECURITY_CONTEXT_PREFIX: &str = "security-context-";

/// Contents of the security context directory. Texts in base64 are written as they are; an empty text gives no file.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecurityContextFiles<'a> {
    /// The policy text.
    pub policy: &'a str,
    /// Signed reference values of the guest, base64.
    pub reference: &'a str,
    /// The same as a hash envelope, base64.
    pub transparent_reference: &'a str,
    /// Latest reference values of the trusted computing base that the host injected.
    pub tcb_reference: &'a [u8],
    /// Latest reference values of the platform that the host injected.
    pub platform_reference: &'a [u8],
    /// AMD's certificates of the host, base64.
    pub host_certificate: &'a str,
}

impl SecurityContextFiles<'_> {
    /// Name and content of each file that is not empty.
    ///
    /// The files are not secret. Only the policy is verified by the guest; readers verify the signatures of the others.
    pub fn named(&self) -> Vec<(&'static str, String)> {
        let files = [
            ("security-policy-base64", STANDARD.encode(self.policy)),
            ("reference-info-base64", self.reference.to_owned()),
            ("transparent-reference-info-base64", self.transparent_reference.to_owned()),
            ("tcb-reference-info-base64", STANDARD.encode(self.tcb_reference)),
            ("platform-reference-info-base64", STANDARD.encode(self.platform_reference)),
            ("host-amd-cert-base64", self.host_certificate.to_owned()),
        ];
        files.into_iter().filter(|(_, content)| !content.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_content_are_made() {
        let context = SecurityContextFiles {
            policy: "package policy\n",
            tcb_reference: b"x",
            ..SecurityContextFiles::default()
        };
        assert_eq!(
            context.named(),
            [
                ("security-policy-base64", "cGFja2FnZSBwb2xpY3kK".to_owned()),
                ("tcb-reference-info-base64", "eA==".to_owned())
            ]
        );
        assert!(SecurityContextFiles::default().named().is_empty());
    }
}
