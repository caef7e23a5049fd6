//! Gate 1: nothing is served until a policy whose digest is the host data has been set, and only one can ever be set.

use permit_log::Full;
use policy::{Enforcer, PolicyError};
use sha2::{Digest, Sha256};

use crate::{
    evidence::{Evidence, EvidenceError},
    judge::{Judge, SharedLog},
};

/// Why a policy was not set.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No policy yet.
    #[error("no policy is in force: the first call must be SetPolicy")]
    Closed,
    /// A policy is already in force and cannot be replaced.
    #[error("a policy is in force already, and it cannot be replaced")]
    AlreadyOpen,
    /// The only attempt failed.
    #[error("the policy was refused before; this guest serves nothing")]
    Spent,
    /// The digest is not the host data.
    #[error("policy with digest {received} refused: host data is {expected}")]
    WrongDigest {
        /// SHA-256 of the received text, in hex.
        received: String,
        /// Host data, in hex.
        expected: String,
    },
    /// The state of the guest and the policy's view of it may differ; see [`crate::sandbox`].
    #[error("an earlier request could not be undone: this guest serves nothing any more")]
    Sealed,
    /// The host data cannot be read; there is no other source.
    #[error("host data cannot be read")]
    Evidence(#[from] EvidenceError),
    /// The text is not UTF-8.
    #[error("the policy is not UTF-8 text")]
    Text,
    /// The text has the right digest but is not a valid policy.
    #[error("the policy cannot be loaded")]
    Policy(#[source] PolicyError),
    /// The policy cannot be the first entry of the log.
    #[error(transparent)]
    Log(#[from] Full),
}

/// Holds the judge once there is one.
pub enum Gate<E> {
    /// Before SetPolicy.
    Closed(E),
    /// A policy is in force.
    Open(Box<Judge>),
    /// The text with the right digest was refused: no other text can be accepted.
    Shut,
}

impl<E: Evidence> Gate<E> {
    /// Compares `text` with the host data and loads it; returns the digest.
    ///
    /// A text with another digest leaves the gate closed and changes nothing. A text with the right digest that is not a
    /// policy closes the gate for good. The digest becomes the first entry of `log`.
    pub fn set_policy(&mut self, text: Vec<u8>, log: &SharedLog) -> Result<[u8; 32], GateError> {
        let evidence = match self {
            Self::Closed(evidence) => evidence,
            Self::Open(_) => return Err(GateError::AlreadyOpen),
            Self::Shut => return Err(GateError::Spent),
        };
        let expected = evidence.host_data()?;
        let received: [u8; 32] = Sha256::digest(&text).into();
        if !same(&expected, &received) {
            return Err(GateError::WrongDigest {
                received: hex::encode(received),
                expected: hex::encode(expected),
            });
        }
        *self = Self::Shut;
        let text = String::from_utf8(text).map_err(|_| GateError::Text)?;
        let enforcer = Enforcer::new(&text).map_err(GateError::Policy)?;
        *self = Self::Open(Box::new(Judge::new(enforcer, received, log.clone())?));
        Ok(received)
    }

    /// The judge, if a policy is in force.
    pub fn judge(&mut self) -> Result<&mut Judge, GateError> {
        match self {
            Self::Open(judge) => Ok(judge),
            Self::Closed(_) => Err(GateError::Closed),
            Self::Shut => Err(GateError::Spent),
        }
    }
}

/// Compares without a branch on the contents, so that the time reveals nothing about how much matched.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Attested;

    /// Host data chosen by a test.
    struct Fixed([u8; 32]);

    impl Evidence for Fixed {
        fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
            Ok(self.0)
        }

        fn report(&self, _: &[u8; 64]) -> Result<Attested, EvidenceError> {
            Err(EvidenceError::Plain)
        }
    }

    fn closed_for(text: &str) -> Gate<Fixed> {
        Gate::Closed(Fixed(Sha256::digest(text).into()))
    }

    #[test]
    fn only_the_measured_text_opens_and_only_once() {
        let log = SharedLog::default();
        let mut gate = closed_for(agent_protocol::OPEN_DOOR);
        assert!(matches!(gate.judge(), Err(GateError::Closed)));
        let other = gate.set_policy(b"package policy\n".to_vec(), &log).unwrap_err();
        let GateError::WrongDigest { received, expected } = other else {
            panic!("{other}")
        };
        assert_ne!(received, expected);
        assert!(matches!(gate.judge(), Err(GateError::Closed)));

        let digest = gate.set_policy(agent_protocol::OPEN_DOOR.into(), &log).unwrap();
        assert_eq!(hex::encode(digest), expected);
        assert_eq!(
            log.lock().entries().collect::<Vec<_>>(),
            [(0, &permit_log::Entry::Policy { digest })]
        );
        assert!(gate.judge().is_ok());
        assert!(matches!(
            gate.set_policy(agent_protocol::OPEN_DOOR.into(), &log),
            Err(GateError::AlreadyOpen)
        ));
    }

    #[test]
    fn a_measured_text_that_is_no_policy_closes_the_gate_for_good() {
        for text in ["no policy at all", "package policy\nx := {\n"] {
            let log = SharedLog::default();
            let mut gate = closed_for(text);
            assert!(matches!(gate.set_policy(text.into(), &log), Err(GateError::Policy(_))), "{text:?}");
            assert!(matches!(gate.set_policy(text.into(), &log), Err(GateError::Spent)));
            assert!(matches!(gate.judge(), Err(GateError::Spent)));
        }
    }

    #[test]
    fn one_bit_makes_a_difference() {
        let digest = [7; 32];
        for byte in 0..32 {
            let mut other = digest;
            other[byte] ^= 0x80;
            assert!(!same(&digest, &other));
        }
        assert!(same(&digest, &[7; 32]));
    }
}
