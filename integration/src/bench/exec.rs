//! `ctr task exec … true` in a running container, compared with runc.

use super::ctr::{Sleeper, in_turns};
use super::report::Row;
use crate::lab::Runtime;
use crate::testbed::images::BUSYBOX;
use anyhow::Result;

/// Rounds; the first is dropped.
const ROUNDS: usize = 8;

/// Measures; returns the row.
pub fn measure() -> Result<Vec<Row>> {
    let (casemate, runc) = (Sleeper::start(Runtime::Casemate, BUSYBOX)?, Sleeper::start(Runtime::Runc, BUSYBOX)?);
    let [ours, theirs] = in_turns(ROUNDS, |runtime, round| {
        let sleeper = if runtime == Runtime::Casemate { &casemate } else { &runc };
        sleeper.exec(&format!("exec-{round}"), &["true"])
    })?;
    Ok(vec![
        Row::of("ctr task exec", ours, "s")
            .compared_with("runc", theirs)
            .target("≤ 1.0 × runc"),
    ])
}
