//! A jump of the host's clock makes no deadline pass early and disables none.

use super::until_ready;
use crate::{
    lab::{Lab, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result};
use std::time::{SystemTime, UNIX_EPOCH};

/// The story.
pub const STORY: Story = Story {
    name: "clock-steps",
    about: "the host's clock jumps a day ahead and back while containers run and boot",
    runtimes: OURS,
    set: Set::Full,
    machines: Machines::Own { minutes: 20 },
    run: clock_steps,
};

const DAY: i64 = 24 * 60 * 60;

fn clock_steps(lab: &Lab) -> Result<()> {
    for step in [DAY, -2 * DAY, DAY] {
        // While a container runs.
        let container = lab.container(BUSYBOX).command(["sleep", "100000"]).start()?;
        shift(step)?;
        container.exec("after", ["echo", "here"])?.exits_with(0)?.prints("here")?;
        container.killed(lab)?;
        shift(-step)?;
        // While one boots.
        let mut booting = lab
            .container(BUSYBOX)
            .command(["sh", "-c", "echo booted; exit 4"])
            .start_in_foreground()?;
        until_ready(lab, "a VM", &mut booting, || {
            crate::lab::traces::pids_of("casemate-vmm").is_ok_and(|pids| !pids.is_empty())
        })?;
        shift(step)?;
        booting.end()?.exits_with(4)?.prints("booted")?;
        lab.nothing_is_left()?;
    }
    Ok(())
}

fn shift(seconds: i64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let then = now.as_secs().checked_add_signed(seconds).context("cannot set the clock")?;
    crate::lab::Ended::of(&["date", "-s", &format!("@{then}")])?.exits_with(0)?;
    Ok(())
}
