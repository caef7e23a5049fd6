//! `make demo TEE=simulated`: from a policy to a verified report, and every lie that is refused.

use super::title;
use crate::lab::{
    Ended, GuestImage, Lab, NODE_CONFIG, Policy,
    simulated::{self, Answer, KEYS, Told, Verifier},
};
use anyhow::{Context, Result, ensure};
use permit_log::Log;
use std::fs;

/// A nonce that nobody sent.
const OTHER_NONCE: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// What was verified, for whoever wants to lie about it.
pub struct Verified {
    /// The guest's answer.
    pub answer: Answer,
    /// The nonce that it binds.
    pub nonce: String,
}

/// Runs guests, verifies one, and has everything else refused.
pub fn run(lab: &Lab, nonce: &str) -> Result<Verified> {
    title("1. The policy and the measurement that a verifier expects");
    let policy = simulated::policy()?;
    let verifier = Verifier::of(&policy, nonce)?;
    println!("digest of the policy, which becomes HOST_DATA: {}", policy.digest());
    println!(
        "launch digest of the guest image, which becomes MEASUREMENT: {}",
        verifier.measurement()
    );

    title("2. A container asks its guest for a report that binds the verifier's nonce");
    let answer = Answer::of(lab, &policy, "app", nonce)?;
    let log = answer.log()?;
    println!("the report binds the nonce and the head of this log:");
    for (n, entry) in log.entries() {
        println!("  {n:>2} {entry}");
    }

    title("3. Verified");
    let ended = verifier.judge(&answer, Told::Truth)?;
    println!("{}", ended.said());
    ensure!(ended.exits_with(0)?.text().ends_with("\nverified"), "the guest was not verified");
    title("4. Refused");
    refuse(
        &verifier,
        "another policy",
        &under_another_policy(lab, nonce)?,
        Told::Truth,
        "host data",
    )?;
    let image = GuestImage::copy()?;
    fs::write(NODE_CONFIG, format!("image_dir = \"{}\"\n", image.dir().display())).context("cannot write the configuration")?;
    image.append_to_cmdline(" quiet")?;
    refuse(
        &verifier,
        "another kernel command line",
        &Answer::of(lab, &policy, "cmdline", nonce)?,
        Told::Truth,
        "measurement",
    )?;
    drop(image);
    let image = GuestImage::copy()?;
    image.replace_kernel()?;
    refuse(
        &verifier,
        "another byte in the kernel",
        &Answer::of(lab, &policy, "kernel", nonce)?,
        Told::Truth,
        "measurement",
    )?;
    drop(image);
    fs::remove_file(NODE_CONFIG).context("cannot remove the configuration")?;
    refuse(
        &verifier,
        "a guest that its host may debug",
        &answer.with_debug_policy()?,
        Told::Truth,
        "debug",
    )?;
    refuse(&verifier, "stale firmware", &answer.with_stale_tcb()?, Told::Truth, "minimum TCB")?;
    refuse(&verifier, "another nonce", &answer, Told::Nonce(OTHER_NONCE), "report data")?;
    refuse(&verifier, "a root that nobody vouches for", &answer, Told::RootsOfAmd, "root")?;
    refused("a real Milan, which was not named", verifier.judge_milan()?, "product allowed")?;
    let shorter = answer.with_log(&without(&log, log.len().saturating_sub(1))?);
    refuse(&verifier, "the log without its last entry", &shorter, Told::Truth, "report data")?;

    println!("\nkeys and certificates of this host's simulated processor: {KEYS}");
    Ok(Verified {
        answer,
        nonce: nonce.to_owned(),
    })
}

/// A host that runs the container under a policy of its own.
fn under_another_policy(lab: &Lab, nonce: &str) -> Result<Answer> {
    let other = Policy::of(crate::testbed::images::CURL)
        .command(&simulated::COMMAND)
        .environment("NONCE=[0-9a-f]{64}")
        .exec(&["sh"])
        .generate()?;
    Answer::of(lab, &other, "other", nonce)
}

/// The log as it would be without one of its acts.
pub fn without(log: &Log, missing: u64) -> Result<Log> {
    let mut shorter = Log::default();
    for (_, entry) in log.entries().filter(|(n, _)| *n != missing) {
        shorter.append(entry.clone()).context("a log of fewer entries")?;
    }
    Ok(shorter)
}

fn refuse(verifier: &Verifier, what: &str, answer: &Answer, told: Told<'_>, check: &str) -> Result<()> {
    refused(what, verifier.judge(answer, told)?, check)
}

/// Shows why, and requires that it is the right reason.
fn refused(what: &str, ended: Ended, check: &str) -> Result<()> {
    let text = ended.exits_with(1)?.text();
    println!("\n  {what}:");
    for line in text.lines().filter(|line| !line.starts_with("ok ")) {
        println!("    {line}");
    }
    let verdict = text.lines().last().unwrap_or_default();
    ensure!(
        verdict.starts_with("refused: ") && verdict.contains(check),
        "{what}: refused, but not by {check}: {verdict}"
    );
    println!();
    Ok(())
}
