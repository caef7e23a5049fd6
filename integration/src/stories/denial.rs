//! The policy's word is final: what it lists runs, anything else is denied with the reason on the caller's screen.

use crate::{
    lab::{Ended, Lab, Policy},
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED},
};
use anyhow::{Result, ensure};

/// Allows one command in the busybox image, and `date` beside it.
fn policy(command: &[&str]) -> Result<Policy> {
    Policy::of(BUSYBOX).command(command).exec(&["date"]).signals(&[9, 15]).generate()
}

/// A denial says in plain words what may not happen and by which rule, and carries the decision for tools.
fn is_denied(ended: Ended, rule: &str) -> Result<()> {
    ended
        .fails()?
        .mentions(" may not ")?
        .mentions(&format!("(rule {rule})"))?
        .mentions("policyDecision<")?;
    Ok(())
}

pub(super) fn allowed(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    lab.container(BUSYBOX)
        .under(&policy)
        .command(["echo", "allowed"])
        .run()?
        .exits_with(0)?
        .prints("allowed")?;
    lab.nothing_is_left()
}

pub(super) fn command(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    let ended = lab.container(BUSYBOX).under(&policy).command(["echo", "something else"]).run()?;
    ensure!(!ended.text().contains("something else"), "the denied command ran");
    is_denied(ended, "create_container")?;
    lab.nothing_is_left()
}

pub(super) fn layer(lab: &Lab) -> Result<()> {
    let policy = policy(&["echo", "allowed"])?;
    let ended = lab.container(BUSYBOX_CHANGED).under(&policy).command(["echo", "allowed"]).run()?;
    ensure!(
        ended.text() != "allowed",
        "a container ran on a layer that the policy does not list"
    );
    is_denied(ended, "mount_device")?;
    lab.nothing_is_left()
}

pub(super) fn exec(lab: &Lab) -> Result<()> {
    let policy = policy(&["sleep", "1000"])?;
    let container = lab.container(BUSYBOX).under(&policy).command(["sleep", "1000"]).start()?;
    container.exec("listed", ["date"])?.exits_with(0)?;
    is_denied(container.exec("unlisted", ["cat", "/etc/passwd"])?, "exec_in_container")?;
    ensure!(container.status()? == "RUNNING", "the denied exec ended the container");
    container.exec("listed-again", ["date"])?.exits_with(0)?;
    container.killed(lab)?;
    lab.nothing_is_left()
}
