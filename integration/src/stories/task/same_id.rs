//! One id again and again, without a pause: no creation meets the shim of the deletion before it.

use crate::{
    lab::{Ended, Lab, Set, Stdio, Tasks},
    stories::story::{BOTH, Machines, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};

/// The story.
pub const STORY: Story = Story {
    name: "same-id",
    about: "a task of one id is created and deleted again and again without a pause",
    runtimes: BOTH,
    set: Set::Short,
    machines: Machines::Own { minutes: 60 },
    run: same_id,
};

/// Rounds of the short set and of the full one.
const ROUNDS: (u32, u32) = (6, 200);
const SIGKILL: u32 = 9;

fn same_id(lab: &Lab) -> Result<()> {
    let tasks = Tasks::connect()?;
    let id = lab.container(BUSYBOX).command(["sleep", "1000"]).made()?;
    for round in 1..=lab.scope().rounds(ROUNDS.0, ROUNDS.1) {
        let at = |step: &str| format!("{step} in round {round}");
        tasks.create(&id, &Stdio::default()).with_context(|| at("create"))?;
        // Every other one is deleted before its start.
        let started = round % 2 == 0;
        if started {
            tasks.start(&id, "").with_context(|| at("start"))?;
            tasks.kill(&id, "", SIGKILL).with_context(|| at("kill"))?;
            let status = tasks.wait(&id, "").with_context(|| at("wait"))?;
            ensure!(status == 137, "{} answers {status}", at("wait"));
        }
        let status = tasks.delete(&id).with_context(|| at("delete"))?;
        ensure!(!started || status == 137, "{} answers {status}", at("delete"));
    }
    Ended::of(&["ctr", "container", "delete", &id])?.exits_with(0)?;
    lab.nothing_is_left()
}
