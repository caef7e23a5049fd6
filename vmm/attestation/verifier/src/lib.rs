//! Verifies SEV-SNP attestation reports: from AMD's root to what a requirements file expects of a guest.
//!
//! It takes bytes and expected digests, reads no file, and knows nothing of images. Every check is made and named, whether others failed
//! or not; a report is verified only if all of them pass.
//!
//! Sources: AMD SEV-SNP Firmware ABI Specification (56860, revision 1.58) for reports; AMD VCEK Certificate and KDS Interface
//! Specification (57230) for certificates; RFC 5280 for certificates and revocation lists.
#![forbid(unsafe_code)]

mod certificate;
mod chain;
mod check;
mod collateral;
mod endorsement;
mod expectations;
mod guest;
mod information;
mod key_server;
mod list;
mod platform;
mod revocation;
mod roots;
mod signature;
mod time;

pub use certificate::CertificateError;
pub use check::{Check, verified};
pub use collateral::{Collateral, CollateralError, MAX_COLLATERAL_BYTES};
pub use expectations::{ExpectationError, Expectations, GuestPolicy, Levels, Mitigations, PlatformInfo, Revocation, Wanted};
pub use key_server::{AnswerError, Kind, Question, QuestionError, Questions};
pub use roots::RootError;
pub use time::{Time, TimeError};

use attestation::Report;

/// Makes every check on a report. What the checks have to do with each other, in their order: the chain proves the endorsement key, the
/// key proves the report, the certificate's extensions bind it to chip and TCB, and the expectations judge what the report says.
pub fn verify(report: &Report, collateral: &Collateral, now: Time, expectations: &Expectations) -> Vec<Check> {
    let mut checks = Vec::new();
    let chain = chain::Chain::choose(report, collateral, now, expectations);
    let product = chain.product(report);

    checks.push(platform::reserved(report));
    checks.push(platform::product(report, &chain, product));
    checks.push(platform::product_allowed(product, expectations));
    checks.push(platform::signing_key(report, expectations));

    checks.push(chain.found());
    checks.push(chain.names(report, product));
    checks.push(roots::pinned(chain.root, product, expectations));
    checks.extend(chain.signatures());
    checks.push(chain.authorities());
    checks.push(chain.validity(now));
    checks.extend(revocation::checks(&chain, collateral, now, expectations.revocation));

    checks.push(signature::check(report, chain.endorsement));
    checks.push(endorsement::tcb(report, chain.endorsement, product));
    checks.push(endorsement::chip(
        report,
        chain.endorsement,
        product,
        expectations.allow_masked_chip_id,
    ));

    checks.push(platform::tcb_order(report, product));
    checks.push(platform::minimum_tcb("minimum TCB", report.reported_tcb(), product, expectations));
    checks.push(platform::minimum_tcb("launch TCB", report.launch_tcb(), product, expectations));
    checks.extend(platform::information(report, &expectations.platform_info));
    checks.extend(platform::mitigations(report, expectations.mitigations));

    checks.extend(guest::policy(report, expectations.guest_policy));
    checks.push(guest::privilege_level(report));
    checks.push(guest::digest("measurement", &report.measurement(), &expectations.measurements));
    checks.push(guest::digest("host data", &report.host_data(), &expectations.host_data));
    checks.push(guest::digest("report data", &report.report_data(), &expectations.report_data));
    checks.push(guest::id_key(report, &expectations.id_key_digests));
    checks
}

#[cfg(test)]
mod tests;
