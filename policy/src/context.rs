//! The security context directory: what a container finds of its policy, and of the references by which others verify its guest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The variable that tells a container where its [`context_files`] are; its value is the directory's path in the container.
pub const CONTEXT_VARIABLE: &str = "UVM_SECURITY_CONTEXT_DIR";
/// Begin of the directory's name at the top of the root file system; random hex digits follow.
pub const CONTEXT_PREFIX: &str = "security-context-";

/// What the security context directory is made of. Texts that come in base64 stay as they are; an empty one makes no file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The policy's text.
    pub policy: &'a str,
    /// Signed reference values of the guest, base64.
    pub reference: &'a str,
    /// The same as a hash envelope, base64.
    pub transparent_reference: &'a str,
    /// The last reference values of the trusted computing base that were injected.
    pub tcb_reference: &'a [u8],
    /// The last reference values of the platform that were injected.
    pub platform_reference: &'a [u8],
    /// AMD's certificates of the host, base64.
    pub host_certificate: &'a str,
}

/// The files of a security context directory, name and content: those that have content. Nothing in them is secret, and but
/// for the policy nothing in them is proven: whoever reads them verifies their signatures.
pub fn context_files(context: &Context<'_>) -> Vec<(&'static str, String)> {
    let files = [
        ("security-policy-base64", STANDARD.encode(context.policy)),
        ("reference-info-base64", context.reference.to_owned()),
        ("transparent-reference-info-base64", context.transparent_reference.to_owned()),
        ("tcb-reference-info-base64", STANDARD.encode(context.tcb_reference)),
        ("platform-reference-info-base64", STANDARD.encode(context.platform_reference)),
        ("host-amd-cert-base64", context.host_certificate.to_owned()),
    ];
    files.into_iter().filter(|(_, content)| !content.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_content_are_made() {
        let context = Context {
            policy: "package policy\n",
            tcb_reference: b"x",
            ..Context::default()
        };
        assert_eq!(
            context_files(&context),
            [
                ("security-policy-base64", "cGFja2FnZSBwb2xpY3kK".to_owned()),
                ("tcb-reference-info-base64", "eA==".to_owned())
            ]
        );
        assert!(context_files(&Context::default()).is_empty());
    }
}
