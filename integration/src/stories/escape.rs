//! A hostile container against the guest: it reaches neither the guest's own programs and files nor the host's virtualisation.

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
        about: "a container that makes the guest's launcher run in it can neither change it nor see the guest's files",
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

/// Of each kind of container.
const EXECS: u32 = 40;
const CREATES: u32 = 10;
/// As a program: whatever runs it runs itself once more, in the container.
const ITSELF: &str = "/proc/self/exe";
const LOG: &str = "/job/out/thief.log";
/// Looks at every process of its pid namespace as it appears (the exec's is the next one), and reports where it is not busybox:
/// it keeps the program open, waits for the end of the process, and tries to open the program for writing. A thief that may trace
/// processes is also asked for the root, the working directory and the directories that the process has open; only the
/// guest's root has an `/init`. No line of it starts another process.
const THIEF: &str = r#"
steal() {
    echo "holds the program of a process"
    while [ -d /proc/$1 ]; do :; done
    tries=0
    while [ $tries -lt 50 ]; do
        { echo "opened it for writing"; echo x >&4 && echo "wrote to it"; return; } 4>>/proc/self/fd/3
        tries=$((tries + 1))
    done
}
look() {
    { [ /proc/self/fd/3 -ef /bin/busybox ] || steal $1; } 3</proc/$1/exe
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
/// What the thief must never say.
const CAUGHT: [&str; 4] = ["opened it", "wrote to it", "guest's files", "open directory"];

fn guest_programs(lab: &Lab) -> Result<()> {
    for capability in [None, Some("CAP_SYS_PTRACE")] {
        rob(lab, capability).with_context(|| format!("a thief with {}", capability.unwrap_or("default capabilities")))?;
    }
    lab.nothing_is_left()
}

/// A pod whose first container is the thief: processes are executed in it, and containers are made that share its pids.
fn rob(lab: &Lab, capability: Option<&str>) -> Result<()> {
    let mut thief = lab
        .container(BUSYBOX)
        .named("thief")
        .option("--annotation", "io.kubernetes.cri.container-type=sandbox")
        .command(["sh", "-c", THIEF]);
    if let Some(capability) = capability {
        thief = thief.option("--cap-add", capability);
    }
    // Appended to by the shim.
    let _ = std::fs::remove_file(LOG);
    let thief = thief.start_logging(&format!("file://{LOG}"))?;
    let tasks = Tasks::connect()?;
    for n in 0..EXECS {
        let exec = format!("exec-{n}");
        tasks.exec(thief.id(), &exec, &[ITSELF], &Stdio::default()).context("exec")?;
        // Refused as a program that is not there to be executed, or run: neither shows anything about the guest.
        if tasks.start(thief.id(), &exec).is_ok() {
            tasks.wait(thief.id(), &exec).context("wait")?;
        }
        tasks.delete_exec(thief.id(), &exec).context("delete exec")?;
    }
    for _ in 0..CREATES {
        let member = lab
            .container(BUSYBOX)
            .option("--annotation", "io.kubernetes.cri.container-type=container")
            .option("--annotation", "io.kubernetes.cri.sandbox-id=thief")
            .option("--with-ns", "pid:/proc/1/ns/pid")
            .command([ITSELF]);
        member.run()?;
    }
    let said = std::fs::read_to_string(LOG).context("the thief's log is missing")?;
    let count = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    println!("  the thief {} times held a program", count("holds the program"));
    ensure!(
        count("holds the program") > 0,
        "the thief never got hold of a program, so nothing was tried"
    );
    for words in CAUGHT {
        ensure!(count(words) == 0, "the thief reported {words:?} {} times", count(words));
    }
    is_whole(&thief)?;
    thief.killed(lab)
}

/// The guest reports that its programs cannot be changed, and they still work.
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
    ensure!(words.contains(&"hypervisor"), "no list of features: {flags}");
    for feature in ["svm", "vmx", "npt", "sgx", "ibs", "rtm", "arch_perfmon"] {
        ensure!(!words.contains(&feature), "the guest is offered {feature}: {flags}");
    }
    lab.nothing_is_left()
}
