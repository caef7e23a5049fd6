//! Adds signed messages to the policy: each is judged, and accepted completely or not at all.

use policy::action::LoadFragment;
use policy_fragment::{Fragment, LedgerKey, Receipt};

use crate::{
    decode::Addition,
    judge::{Judge, Refusal},
    security_context::SecurityContext,
};

/// Asks the policy, and keeps what the message adds. A refused message leaves nothing behind, whatever the policy's own rules
/// stored meanwhile. Reference values are not judged in the guest; they are kept for later containers.
///
/// # Errors
/// The policy denies it, or the log is full.
pub fn load(judge: &mut Judge, context: &mut SecurityContext, addition: Addition) -> Result<(), Refusal> {
    match addition {
        Addition::Fragment(fragment) => {
            let action = with_receipts(judge, fragment);
            let mut whole = judge.transaction();
            whole.enforce(action)?.commit();
            whole.commit();
        }
        Addition::TrustList(action) => {
            let mut whole = judge.transaction();
            whole.enforce(action)?.commit();
            whole.commit();
        }
        Addition::Reference(media_type, message) => context.refer(media_type, message),
    }
    Ok(())
}

/// The fragment with those of its receipts that a key of a loaded trust list verifies.
fn with_receipts(judge: &Judge, fragment: Fragment) -> LoadFragment {
    let claims = fragment.receipts.iter().map(|receipt| (receipt.issuer().to_owned(), receipt));
    let confirms = |receipt: &&Receipt, id: &str, key: &[u8]| {
        // The ledger may have many keys; only the one that the receipt names is tried.
        id == receipt.kid() && LedgerKey::from_bytes(id, key).is_ok_and(|key| receipt.verify(&key).is_ok())
    };
    LoadFragment {
        receipts: judge.proven_receipts(claims, confirms),
        issuer: fragment.issuer.as_str().to_owned(),
        feed: fragment.feed.as_str().to_owned(),
        header_svn: fragment.svn,
        text: fragment.rego,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{self, DecodeError};
    use crate::judge::SharedLog;
    use agent_protocol::LoadFragmentRequest;
    use policy::{Denied, Enforcer};

    const FRAGMENT: &[u8] = include_bytes!("../../policy/fragment/fixtures/es256.cose");
    const WITH_RECEIPT: &[u8] = include_bytes!("../../policy/fragment/fixtures/receipt.cose");
    const TRUST_LIST: &[u8] = include_bytes!("../../policy/fragment/fixtures/trust-list.cose");
    const TRUST_LISTS: &str = "application/vnd.transparency-trust-list.v1+cose";

    fn opened(message: &[u8], media_type: &str) -> Result<Addition, DecodeError> {
        let request = LoadFragmentRequest {
            message: message.to_vec(),
            media_type: media_type.to_owned(),
            ..Default::default()
        };
        decode::injection(request)?.open()
    }

    fn addition(message: &[u8], media_type: &str) -> Addition {
        opened(message, media_type).unwrap()
    }

    fn judge_for(policy: &str) -> Judge {
        Judge::new(Enforcer::new(policy).unwrap(), [0; 32], SharedLog::default()).unwrap()
    }

    fn load(judge: &mut Judge, addition: Addition) -> Result<(), Denied> {
        match super::load(judge, &mut SecurityContext::default(), addition) {
            Ok(()) => Ok(()),
            Err(Refusal::Denied(denied)) => Err(denied),
            Err(other) => panic!("{other}"),
        }
    }

    /// A policy that allows the feed of `message`, from SVN `minimum` on, with these receipts.
    fn policy(message: &[u8], minimum: u32, receipts: &str) -> String {
        let fragment = Fragment::open(message).unwrap();
        let list = policy_fragment::TrustList::open(TRUST_LIST).unwrap();
        let rules = ["load_fragment", "load_transparency_trust_list"].map(|point| format!("{point} := data.framework.{point}\n"));
        format!(
            r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
fragments := [{{"issuer": "{}", "feed": "{}", "minimum_svn": "{minimum}", "includes": ["containers"], "required_receipts": [{receipts}]}}]
transparency_trust_lists := [{{"issuer": "{}", "subject": "{}", "minimum_svn": "1", "allowed_ledgers": ["*"]}}]
{}
reason := data.framework.reason
"#,
            fragment.issuer,
            fragment.feed,
            list.issuer,
            list.subject,
            rules.concat(),
        )
    }

    #[test]
    fn an_allowed_fragment_is_loaded_and_another_is_not() {
        let mut judge = judge_for(&policy(FRAGMENT, 2, ""));
        load(&mut judge, addition(FRAGMENT, "")).unwrap();
        let mut judge = judge_for(&policy(FRAGMENT, 3, ""));
        let denied = load(&mut judge, addition(FRAGMENT, "")).unwrap_err();
        assert_eq!(denied.point(), "load_fragment");
        assert!(denied.to_string().contains("may not be loaded"), "{denied}");
    }

    #[test]
    fn a_receipt_counts_only_after_its_ledger_is_trusted() {
        let mut judge = judge_for(&policy(WITH_RECEIPT, 1, r#""ledger.example""#));
        assert!(load(&mut judge, addition(WITH_RECEIPT, "")).is_err());
        load(&mut judge, addition(TRUST_LIST, TRUST_LISTS)).unwrap();
        load(&mut judge, addition(WITH_RECEIPT, "")).unwrap();
    }

    #[test]
    fn a_trust_list_must_be_allowed_by_the_policy() {
        let mut judge = judge_for("package policy\napi_version := \"0.12.0\"\n");
        let denied = load(&mut judge, addition(TRUST_LIST, TRUST_LISTS)).unwrap_err();
        assert_eq!(denied.point(), "load_transparency_trust_list");
    }

    #[test]
    fn a_message_signed_for_another_use_is_not_opened() {
        let mut forged = FRAGMENT.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(opened(&forged, "").is_err());
        assert!(opened(b"package fragment\n", "").is_err());
        assert!(opened(FRAGMENT, "text/plain").is_err());
        assert!(opened(TRUST_LIST, "").is_err(), "a list of keys is no Rego");
        let long = vec![0; agent_protocol::limits::FRAGMENT_BYTES + 1];
        assert!(matches!(opened(&long, ""), Err(DecodeError::FragmentTooLong(_))));
    }
}
