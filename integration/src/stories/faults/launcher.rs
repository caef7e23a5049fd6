//! SIGKILL to the guest's launcher while it starts a container or an exec.
//!
//! Nothing outside the guest can send the signal, and there is no hook for it, so it comes from inside. (1) The process that becomes an
//! exec is a child of the launcher and is in the container's pid namespace before it executes the caller's program, so an init that
//! kills every process it sees hits it there.
//! (2) The process that becomes a container's init is in the container's cgroup from the beginning. With too little memory the
//! guest's kernel OOM-kills it on the way, later the more memory it has.

use super::{SHOWS_WITHIN, forget_containers};
use crate::{
    lab::{Lab, Set, Traces},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "exec-killed",
        about: "the process that becomes an exec is killed inside the guest: 137 or an error, and the container keeps running",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Spread { machines: 2, minutes: 20 },
        run: execs_killed,
    },
    Story {
        name: "start-starved",
        about: "the process that becomes a container is OOM-killed by the guest's kernel: 137 or an error, and the pod keeps running",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Spread { machines: 2, minutes: 20 },
        run: starts_oom_killed,
    },
];

const EXECS_SHORT: u32 = 4;
const EXECS_FULL: u32 = 100;
const STARTS_SHORT: u32 = 3;
const STARTS_FULL: u32 = 100;
/// Kills every process that it sees except itself, at intervals from the shell's random numbers, until SIGTERM.
const KILLER: &str = "trap 'exec sleep 100000' TERM; RANDOM=$0; \
    while :; do busybox usleep $((RANDOM * 20)); kill -9 -1; done";
/// Memory limits in bytes, from too little for anything to enough for everything.
const LEAST: f64 = 32.0 * 1024.0;
const MOST: f64 = 768.0 * 1024.0;

fn execs_killed(lab: &Lab) -> Result<()> {
    let mut random = lab.scope().random();
    let seed = random.below(30_000).to_string();
    let container = lab.container(BUSYBOX).command(["sh", "-c", KILLER, &seed]).start()?;
    for n in 0..lab.scope().rounds(EXECS_SHORT, EXECS_FULL) {
        let ended = container.exec(&format!("exec-{n}"), ["sleep", "1000"])?;
        // If it is killed before its execve, the agent reports an error; otherwise the exec exits with 137.
        ensure!(ended.status != 0, "a killed exec exited with 0");
        ensure!(
            ended.status == 137 || ended.said().contains("exec"),
            "exec {n} exited with {} and no reason: {}",
            ended.status,
            ended.said()
        );
        ensure!(container.status()? == "RUNNING", "exec {n} stopped the container");
    }
    container.signal("SIGTERM")?;
    // The killed execs left no process: only the init's, and the two of this exec.
    let ended = lab.until("an exec that is not killed", SHOWS_WITHIN, || {
        container
            .exec("look", ["sh", "-c", "echo /proc/[0-9]*"])
            .ok()
            .filter(|ended| ended.status == 0)
    })?;
    let seen = ended.text().split_ascii_whitespace().count();
    ensure!(seen <= 3, "processes are left in the container: {}", ended.text());
    container.killed(lab)?;
    lab.nothing_is_left()
}

fn starts_oom_killed(lab: &Lab) -> Result<()> {
    let mut random = lab.scope().random();
    let pod = lab
        .container(BUSYBOX)
        .named("pod")
        .option("--annotation", "io.containerd.runc.v2.group=pod")
        .command(["sleep", "100000"])
        .start()?;
    let known = Traces::now()?;
    for n in 0..lab.scope().rounds(STARTS_SHORT, STARTS_FULL) {
        let bytes = random.magnitude(LEAST, MOST) as u64;
        let ended = lab
            .container(BUSYBOX)
            .option("--annotation", "io.containerd.runc.v2.group=pod")
            .option("--memory-limit", &bytes.to_string())
            .command(["echo", "enough"])
            .run()?;
        match ended.status {
            0 => ensure!(ended.text() == "enough", "with {bytes} bytes: {}", ended.said()),
            137 => {}
            _ => ensure!(!ended.said().is_empty(), "with {bytes} bytes it fails without a reason"),
        }
        forget_containers(&["pod"])?;
        lab.nothing_is_left_but(&known)
            .with_context(|| format!("start {n} with {bytes} bytes"))?;
    }
    // The pod is intact: its first container runs, and another one starts.
    pod.exec("still", ["echo", "here"])?.exits_with(0)?.prints("here")?;
    lab.container(BUSYBOX)
        .option("--annotation", "io.containerd.runc.v2.group=pod")
        .command(["echo", "new"])
        .run()?
        .exits_with(0)?
        .prints("new")?;
    pod.killed(lab)?;
    lab.nothing_is_left()
}
