//! Containers start, print, take signals, run an exec and exit.

use crate::{
    lab::{Ended, Lab, Runtime, Set, is_running},
    stories::story::{BOTH, Machines, OURS, Story},
    testbed::images::{BUSYBOX, REDIS},
};
use anyhow::{Result, ensure};
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "run",
        about: "a container prints what its command prints, and leaves nothing behind",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run,
    },
    Story {
        name: "exit-code",
        about: "exit code 7 arrives as 7",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: exit_code,
    },
    Story {
        name: "exec",
        about: "a second process runs beside the first, with its own exit code",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: exec,
    },
    Story {
        name: "kill",
        about: "SIGTERM is handled by the process, SIGKILL ends it with 137",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: kill,
    },
    Story {
        name: "layers",
        about: "a multi-layer image with whiteouts looks as it was built; redis answers",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: layers,
    },
    Story {
        name: "guest-kernel",
        about: "the container sees the guest's kernel, not the host's",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: guest_kernel,
    },
];

/// Starting a server takes long in an emulated machine.
const SERVER_DEADLINE: Duration = Duration::from_secs(60);

fn run(lab: &Lab) -> Result<()> {
    lab.container(BUSYBOX)
        .command(["echo", "hello", "from inside"])
        .run()?
        .exits_with(0)?
        .prints("hello from inside")?;
    let both = lab
        .container(BUSYBOX)
        .command(["sh", "-c", "echo out; echo err >&2"])
        .run()?
        .exits_with(0)?;
    ensure!(
        both.stdout == b"out\n" && both.stderr == b"err\n",
        "the outputs are mixed up: {both:?}"
    );
    lab.nothing_is_left()
}

fn exit_code(lab: &Lab) -> Result<()> {
    lab.container(BUSYBOX).command(["sh", "-c", "exit 7"]).run()?.exits_with(7)?;
    lab.container(BUSYBOX)
        .command(["/no/such/program"])
        .run()?
        .fails()?
        .mentions("/no/such/program")?;
    lab.nothing_is_left()
}

fn exec(lab: &Lab) -> Result<()> {
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]).start()?;
    container
        .exec("first", ["cat", "/proc/1/cmdline"])?
        .exits_with(0)?
        .prints("sleep\u{0}1000\u{0}")?;
    container.exec("second", ["sh", "-c", "exit 5"])?.exits_with(5)?;
    container.exec("third", ["/no/such/program"])?.fails()?;
    ensure!(container.status()? == "RUNNING", "an exec stopped the container");
    container.killed(lab)?;
    lab.nothing_is_left()
}

fn kill(lab: &Lab) -> Result<()> {
    let polite = lab
        .container(BUSYBOX)
        .command(["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"])
        .start()?;
    // The trap is set some time after the start.
    polite.exec("look", ["true"])?.exits_with(0)?;
    polite.signal("SIGTERM")?;
    polite.ends_with(lab, 3)?;

    let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
    let id = container.id().to_owned();
    let foreground = container.start_in_foreground()?;
    lab.until("the container runs", SERVER_DEADLINE, || is_running(&id).then_some(()))?;
    Ended::of(&["ctr", "task", "kill", "--signal", "SIGKILL", &id])?.exits_with(0)?;
    foreground.end()?.exits_with(137)?;
    lab.nothing_is_left()
}

fn layers(lab: &Lab) -> Result<()> {
    let redis = lab.container(REDIS).start()?;
    let pong = |n: u32| {
        redis
            .exec(&format!("ping-{n}"), ["redis-cli", "ping"])
            .ok()
            .filter(|ended| ended.text() == "PONG")
    };
    let mut tries = 0;
    lab.until("redis answers PONG", SERVER_DEADLINE, || {
        tries += 1;
        pong(tries)
    })?;
    let look = "cat /etc/casemate-demo; ls /usr/share/doc /etc/motd /lib/systemd 2>&1 | wc -l; ls -A /usr/share/doc | wc -l";
    // Two error messages (/etc/motd, /lib/systemd) and the line for the empty directory.
    redis
        .exec("look", ["sh", "-c", look])?
        .exits_with(0)?
        .prints("as it was built\n3\n0")?;
    redis.signal("SIGTERM")?;
    redis.ends_with(lab, 0)?;
    lab.nothing_is_left()
}

fn guest_kernel(lab: &Lab) -> Result<()> {
    ensure!(lab.runtime() == Runtime::Casemate, "with runc there is no other kernel");
    let inside = lab
        .container(BUSYBOX)
        .command(["cat", "/proc/version"])
        .run()?
        .exits_with(0)?
        .text();
    let outside = std::fs::read_to_string("/proc/version")?;
    ensure!(
        inside.starts_with("Linux version ") && inside != outside.trim_end(),
        "the container sees the host's kernel: {inside}"
    );
    lab.nothing_is_left()
}
