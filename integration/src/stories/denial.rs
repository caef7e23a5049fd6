//! What the policy allows runs; anything else is denied, with the reason in the caller's output.

use crate::{
    lab::{Ended, Lab, Policy, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED},
};
use anyhow::{Result, ensure};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "allowed",
        about: "what the policy lists runs under it",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: allowed,
    },
    Story {
        name: "denied-command",
        about: "a command other than the policy's is denied, with the reason",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: command,
    },
    Story {
        name: "denied-layer",
        about: "a changed layer is denied, with the reason",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: layer,
    },
    Story {
        name: "denied-exec",
        about: "an exec that the policy does not list is denied; the container keeps running",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: exec,
    },
];

/// Allows one command in the busybox image, and `date` as an exec.
fn policy(command: &[&str]) -> Result<Policy> {
    Policy::of(BUSYBOX).command(command).exec(&["date"]).signals(&[9, 15]).generate()
}

/// A denial names what is denied and by which rule, and contains the decision for tools.
fn is_denied(ended: Ended, rule: &str) -> Result<()> {
    ended
        .fails()?
        .mentions(" may not ")?
        .mentions(&format!("(rule {rule})"))?
        .mentions("policyDecision<")?;
    Ok(())
}

fn allowed(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    lab.container(BUSYBOX)
        .under(&policy)
        .command(["echo", "allowed"])
        .run()?
        .exits_with(0)?
        .prints("allowed")?;
    lab.nothing_is_left()
}

fn command(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    let ended = lab.container(BUSYBOX).under(&policy).command(["echo", "something else"]).run()?;
    ensure!(!ended.text().contains("something else"), "the denied command ran");
    is_denied(ended, "create_container")?;
    lab.nothing_is_left()
}

fn layer(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    let ended = lab.container(BUSYBOX_CHANGED).under(&policy).command(["echo", "allowed"]).run()?;
    ensure!(
        ended.text() != "allowed",
        "a container ran on a layer that the policy does not list"
    );
    is_denied(ended, "mount_device")?;
    lab.nothing_is_left()
}

fn exec(lab: &Lab) -> Result<()> {
    let policy = policy(&["sleep", "1000"])?;
    let container = lab.container(BUSYBOX).under(&policy).command(["sleep", "1000"]).start()?;
    container.exec("listed", ["date"])?.exits_with(0)?;
    is_denied(container.exec("unlisted", ["cat", "/etc/passwd"])?, "exec_in_container")?;
    ensure!(container.status()? == "RUNNING", "the denied exec stopped the container");
    container.exec("listed-again", ["date"])?.exits_with(0)?;
    container.killed(lab)?;
    lab.nothing_is_left()
}
