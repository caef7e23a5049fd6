//! Reports for containers: each request is judged like the host's, and answered with everything that a verifier needs.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    error::{RequestError, wire_text},
    evidence::{Evidence, EvidenceError},
    report_socket::{Answer, Order, Orders, Status},
    sandbox::{Proof, Sandbox},
};

/// Answers requests one after the other: the security processor does no more at once, and slows down guests that ask often.
pub async fn serve<E: Evidence + 'static>(sandbox: Arc<Sandbox<E>>, mut orders: Orders) {
    while let Some(Order { container, nonce, reply }) = orders.recv().await {
        let hex_nonce = hex::encode(nonce.as_bytes());
        let answer = match sandbox.report(container, nonce).await {
            Ok(proof) => Answer {
                status: Status::Ok,
                text: document(&hex_nonce, &proof),
            },
            Err(error) => Answer::refusal(status(&error), wire_text(&error)),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }
}

/// REPORT_DATA is left out: a verifier computes it from nonce and log.
fn document(nonce: &str, proof: &Proof) -> String {
    let document = json!({
        "nonce": nonce,
        "report": STANDARD.encode(&proof.report),
        "certificates": STANDARD.encode(&proof.certificates),
        "log": STANDARD.encode(&proof.log),
        "head": proof.head.to_string(),
    });
    format!("{document}\n")
}

fn status(error: &RequestError) -> Status {
    match error {
        RequestError::Denied(_) => Status::Forbidden,
        RequestError::Evidence(EvidenceError::Plain) => Status::NotImplemented,
        _ => Status::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use permit_log::Log;
    use serde_json::Value;

    /// `casemate attest verify` and every other verifier reads these.
    #[test]
    fn the_answer_has_what_a_verifier_needs() {
        let log = Log::default();
        let proof = Proof {
            report: vec![1, 2],
            certificates: Vec::new(),
            log: log.encode(),
            head: log.head(),
        };
        let document: Value = serde_json::from_str(&document("00ff", &proof)).unwrap();
        let text = |field: &str| document[field].as_str().unwrap().to_owned();
        assert_eq!(
            (text("nonce"), text("report"), text("certificates")),
            ("00ff".into(), "AQI=".into(), String::new())
        );
        assert_eq!(Log::decode(&STANDARD.decode(text("log")).unwrap()).unwrap(), log);
        assert_eq!(text("head"), log.head().to_string());
    }
}
