//! A hostile container reaches neither the guest's own programs and files nor the host's virtualisation.

use crate::{
    lab::{Ended, Lab, Running, Set, Stdio, Tasks},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "guest-programs",
        about: "a container in which the guest's launcher runs can neither change it nor see the guest's files",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: guest_programs,
    },
    Story {
        name: "nested-virtualisation",
        about: "a guest is offered no nested virtualisation and no counters of the host",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: nested_virtualisation,
    },
];

/// Execs in each hostile container, and containers created beside it.
const EXECS: u32 = 40;
const CREATES: u32 = 10;
/// An image's program that executes the program of the process that runs it, once more, in the container.
const ITSELF: &str = "/proc/self/exe";
const LOG: &str = "/job/out/hostile.log";
/// Polls for every new process in its pid namespace (the exec's is the next pid) and reports those that are not busybox:
/// it holds the program open, waits for the process to exit, and tries to open the program for writing. If it may trace
/// processes, it also tries the process's root, working directory and open directories; only the guest's root has an
/// `/init`. No line of the script starts another process.
const HOSTILE: &str = r#"
take() {
    echo "holds the program of a process"
    while [ -d /proc/$1 ]; do :; done
    tries=0
    while [ $tries -lt 50 ]; do
        { echo "opened it for writing"; echo x >&4 && echo "wrote to it"; return; } 4>>/proc/self/fd/3
        tries=$((tries + 1))
    done
}
look() {
    { [ /proc/self/fd/3 -ef /bin/busybox ] || take $1; } 3</proc/$1/exe
    for place in root cwd; do
        [ ! -e /proc/$1/$place/init ] || echo "sees the guest's files as $place"
    done
    for open in /proc/$1/fd/*; do
        [ ! -d "$open" ] || echo "sees an open directory"
    done
}
echo begins
while :; do
    read -r a b c d last </proc/loadavg
    look $last
    look $((last + 1))
done 2>/dev/null
"#;
/// What the container must never report.
const FORBIDDEN: [&str; 4] = ["opened it", "wrote to it", "guest's files", "open directory"];

fn guest_programs(lab: &Lab) -> Result<()> {
    for capability in [None, Some("CAP_SYS_PTRACE")] {
        attack(lab, capability).with_context(|| format!("a container with {}", capability.unwrap_or("default capabilities")))?;
    }
    lab.nothing_is_left()
}

/// A group whose first container is the hostile one (a pod's own container runs the guest's pause): processes are executed in it, and containers are created that share its pid namespace.
fn attack(lab: &Lab, capability: Option<&str>) -> Result<()> {
    let mut hostile = lab
        .container(BUSYBOX)
        .named("hostile")
        .option("--annotation", "io.containerd.runc.v2.group=hostile")
        .command(["sh", "-c", HOSTILE]);
    if let Some(capability) = capability {
        hostile = hostile.option("--cap-add", capability);
    }
    // The shim appends to it.
    let _ = std::fs::remove_file(LOG);
    let hostile = hostile.start_logging(&format!("file://{LOG}"))?;
    let tasks = Tasks::connect()?;
    for n in 0..EXECS {
        let exec = format!("exec-{n}");
        tasks.exec(hostile.id(), &exec, &[ITSELF], &Stdio::default()).context("exec")?;
        // It is refused because the program cannot be executed, or it runs: neither reveals anything about the guest.
        if tasks.start(hostile.id(), &exec).is_ok() {
            tasks.wait(hostile.id(), &exec).context("wait")?;
        }
        tasks.delete_exec(hostile.id(), &exec).context("delete exec")?;
    }
    for _ in 0..CREATES {
        let member = lab
            .container(BUSYBOX)
            .option("--annotation", "io.containerd.runc.v2.group=hostile")
            .option("--with-ns", "pid:/proc/1/ns/pid")
            .command([ITSELF]);
        member.run()?;
    }
    let said = std::fs::read_to_string(LOG).context("the log of the hostile container is missing")?;
    let count = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    println!("  held a program open {} times", count("holds the program"));
    ensure!(
        count("holds the program") > 0,
        "the container never held a program open, so nothing was tried"
    );
    for words in FORBIDDEN {
        ensure!(count(words) == 0, "the container reported {words:?} {} times", count(words));
    }
    is_whole(&hostile)?;
    hostile.killed(lab)
}

/// The guest reports that its launcher is sealed, and the launcher still works.
fn is_whole(container: &Running) -> Result<()> {
    let shown = Ended::of(&["casemate", "console", container.id(), "--", "/init", "show", "integrity"])?.exits_with(0)?;
    shown
        .mentions("root read-only")?
        .mentions("launcher sealed seal shrink grow write")?;
    container.exec("whole", ["echo", "whole"])?.exits_with(0)?.prints("whole")?;
    Ok(())
}

fn nested_virtualisation(lab: &Lab) -> Result<()> {
    let flags = lab
        .container(BUSYBOX)
        .command(["grep", "-m1", "^flags", "/proc/cpuinfo"])
        .run()?
        .exits_with(0)?
        .text();
    let words = flags.split_ascii_whitespace().collect::<Vec<_>>();
    ensure!(words.contains(&"hypervisor"), "no list of CPU features: {flags}");
    for feature in ["svm", "vmx", "npt", "sgx", "ibs", "rtm", "arch_perfmon"] {
        ensure!(!words.contains(&feature), "the guest is offered {feature}: {flags}");
    }
    lab.nothing_is_left()
}
