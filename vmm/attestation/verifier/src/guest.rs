//! What a report says about the guest: launch policy, privilege level, and the digests that bind it to an image and a policy.

use crate::check::Check;
use crate::expectations::{GuestPolicy, Wanted};
use attestation::Report;
use std::collections::BTreeSet;

/// Bits of the guest policy, each of which gives the host a freedom (ABI specification, table "Guest Policy Structure").
const SMT: u64 = 1 << 16;
const MIGRATE_MA: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;

/// Whether the launch policy gives the host no more than is accepted.
pub(crate) fn policy(report: &Report, accepted: GuestPolicy) -> [Check; 3] {
    let bits = [
        ("debug", DEBUG, accepted.debug),
        ("migration", MIGRATE_MA, accepted.migration),
        ("smt", SMT, accepted.smt),
    ];
    bits.map(|(name, bit, accepted)| {
        let allowed = report.policy() & bit != 0;
        let seen = if allowed { "allowed" } else { "not allowed" };
        let wanted = if accepted { "allowed or not" } else { "not allowed" };
        Check::new(name, accepted || !allowed, seen, wanted)
    })
}

/// Whether the most privileged level of the guest asked for the report.
pub(crate) fn privilege_level(report: &Report) -> Check {
    Check::new("VMPL", report.vmpl() == 0, report.vmpl().to_string(), "0")
}

/// Whether a field has one of the wanted values.
pub(crate) fn digest<const N: usize>(name: &'static str, seen: &[u8; N], wanted: &Wanted<N>) -> Check {
    let (passed, wanted) = match wanted {
        Wanted::Unsaid => (false, "a value, or the word any: nothing was said".to_owned()),
        Wanted::Any => (true, "any".to_owned()),
        Wanted::OneOf(values) => (values.contains(seen), shown(values)),
    };
    Check::new(name, passed, hex::encode(seen), wanted)
}

/// Whether one of the wanted keys signed the ID block; without any, the field is not looked at.
pub(crate) fn id_key(report: &Report, wanted: &BTreeSet<[u8; 48]>) -> Check {
    let seen = report.id_key_digest();
    match wanted.is_empty() {
        true => Check::new("id key", true, hex::encode(seen), "any"),
        false => Check::new("id key", wanted.contains(&seen), hex::encode(seen), shown(wanted)),
    }
}

fn shown<const N: usize>(values: &BTreeSet<[u8; N]>) -> String {
    match values.len() {
        1..=4 => values.iter().map(hex::encode).collect::<Vec<_>>().join(" or "),
        count => format!("one of {count} values"),
    }
}
