//! The whole path from a policy to a verified report, with a simulated processor; and a host that tells 10 000 other histories.

use crate::{
    demo::attested::{self, Verified},
    lab::{Lab, Set},
    stories::story::{Machines, OURS, Story},
};
use anyhow::{Context, Result, ensure};
use permit_log::{Entry, Log, Nonce};

/// The story.
pub const STORY: Story = Story {
    name: "attested",
    about: "a report of a simulated processor is verified; other policies, kernels, command lines, nonces, roots and logs are refused",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run,
};

/// The verifier's nonce.
const NONCE: &str = "6e6f6e63656e6f6e63656e6f6e63656e6f6e63656e6f6e63656e6f6e63656e6f";
const LIES: usize = 10_000;

fn run(lab: &Lab) -> Result<()> {
    let verified = attested::run(lab, NONCE)?;
    lies_are_refused(lab, &verified)?;
    lab.nothing_is_left()
}

/// The report is genuine, as the verifier has said; of logs and nonces only the true ones go with it.
fn lies_are_refused(lab: &Lab, verified: &Verified) -> Result<()> {
    let log = verified.answer.log()?;
    let nonce = nonce(hex::decode(&verified.nonce).context("the nonce")?)?;
    let bound = verified.answer.report()?.report_data();
    Log::verify(&log.encode(), &nonce, &bound).context("the true log")?;
    let entries: Vec<Entry> = log.entries().map(|(_, entry)| entry.clone()).collect();
    let mut random = fastrand::Rng::with_seed(lab.scope().seed);
    let mut told = 0;
    while told < LIES {
        let (lie, asked) = match random.u8(..4) {
            0 => (omitted(&entries, &mut random), nonce.clone()),
            1 => (reordered(&entries, &mut random), nonce.clone()),
            2 => (repeated(&entries, &mut random), nonce.clone()),
            _ => (entries.clone(), self::nonce((0..32).map(|_| random.u8(..)).collect())?),
        };
        if lie == entries && asked.as_bytes() == nonce.as_bytes() {
            continue;
        }
        let mut other = Log::default();
        for entry in lie {
            // A log in which an act is completed that did not begin cannot even be written.
            if other.append(entry).is_err() {
                break;
            }
        }
        ensure!(
            Log::verify(&other.encode(), &asked, &bound).is_err(),
            "a log was accepted that is not the guest's: {other:?}"
        );
        told += 1;
    }
    println!("  {told} other logs and nonces refused");
    Ok(())
}

fn nonce(bytes: Vec<u8>) -> Result<Nonce> {
    Nonce::new(bytes).context("a nonce of 32 bytes")
}

fn omitted(entries: &[Entry], random: &mut fastrand::Rng) -> Vec<Entry> {
    let mut left = entries.to_vec();
    for _ in 0..random.usize(1..=entries.len()) {
        left.remove(random.usize(..left.len()));
    }
    left
}

fn reordered(entries: &[Entry], random: &mut fastrand::Rng) -> Vec<Entry> {
    let mut other = entries.to_vec();
    random.shuffle(&mut other);
    other
}

fn repeated(entries: &[Entry], random: &mut fastrand::Rng) -> Vec<Entry> {
    let mut more = entries.to_vec();
    for _ in 0..random.usize(1..4) {
        let again = entries[random.usize(..entries.len())].clone();
        more.insert(random.usize(..=more.len()), again);
    }
    more
}
