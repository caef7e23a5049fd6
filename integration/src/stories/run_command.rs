//! `casemate run`: one command from an image's name or its files to the exit code of a container under a policy of its own.

use crate::{
    lab::{Ended, IMAGES, Lab, Program, Set, is_running},
    stories::{
        story::{Machines, OURS, Story},
        task::restart_containerd,
    },
    testbed::images::{BUSYBOX, BUSYBOX_CHANGED, REDIS},
};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "run-command",
        about: "`casemate run` runs an image by name or from files, with streams, exit codes and signals, and leaves nothing",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: run_command,
    },
    Story {
        name: "run-restarted",
        about: "a container of `casemate run` goes on while containerd is killed and started again, and leaves nothing",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: restarted,
    },
    Story {
        name: "run-terminal",
        about: "`casemate run` gives a terminal its size, its keys, and its settings back",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: terminal,
    },
    Story {
        name: "run-denied",
        about: "`casemate run` under a given policy says what is denied, and both digests of an image whose name has moved",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: denied,
    },
];

/// Time limit in an emulated machine.
const SOON: Duration = Duration::from_secs(120);
/// An image's name that the stories move.
const MOVED: &str = "localhost/story/moved:1";
/// A namespace that has no image at first.
const OTHER: &str = "elsewhere";

fn casemate(words: &[&str]) -> Result<Ended> {
    Ended::of(&[&["casemate", "run"], words].concat())
}

fn run_command(lab: &Lab) -> Result<()> {
    let nonce = format!("NONCE={:08x}", std::process::id());
    let print = ["sh", "-c", "echo $NONCE; echo to-stderr >&2; exit 7"];
    let ended = casemate(&[&["--env", &nonce, BUSYBOX], &print[..]].concat())?.exits_with(7)?;
    let ended = ended.prints(&nonce["NONCE=".len()..])?.mentions("to-stderr")?.mentions("policy ")?;
    ensure!(!ended.text().contains("policy"), "the policy's digest is in the container's output");

    // Input, and several layers.
    let mut cat = Program::start(&["casemate", "run", REDIS, "cat"], b"a line of input\n")?;
    cat.end_input();
    cat.end()?.exits_with(0)?.prints("a line of input")?;

    from_files(lab)?;
    signals(lab)?;
    interrupted_early(lab)?;

    casemate(&["localhost/story/no-such-image:1"])?
        .exits_with(125)?
        .mentions("localhost/story/no-such-image:1")?;
    casemate(&["--address", "/run/no-such-socket", BUSYBOX, "true"])?
        .exits_with(125)?
        .mentions("containerd does not answer at /run/no-such-socket")?;
    lab.nothing_is_left()
}

/// A layout in a directory, and a namespace of containerd that has never seen it.
fn from_files(lab: &Lab) -> Result<()> {
    let layout = format!("{IMAGES}/redis-demo");
    let elsewhere = ["--namespace", OTHER, layout.as_str(), "cat", "/etc/casemate-demo"];
    casemate(&elsewhere)?.exits_with(0)?.prints("as it was built")?;
    let listed = |what: &[&str]| Ended::of(&[&["ctr", "--namespace", OTHER], what].concat());
    let images = listed(&["image", "list", "-q"])?.exits_with(0)?.text();
    ensure!(images.starts_with("localhost/redis-demo@sha256:"), "the image is called {images:?}");
    // Everything that the image needs is kept with it and goes with it.
    listed(&["image", "check"])?.exits_with(0)?.mentions("complete (4/4)")?;
    casemate(&elsewhere)?.exits_with(0)?.prints("as it was built")?;
    ensure!(
        listed(&["leases", "list", "-q"])?.exits_with(0)?.text().is_empty(),
        "a lease is left"
    );
    ensure!(listed(&["container", "list", "-q"])?.text().is_empty(), "a container is left");
    listed(&["image", "remove", "--sync", &images])?.exits_with(0)?;
    lab.until("snapshots are collected with their image", SOON, || {
        let snapshots = listed(&["snapshot", "list"]).ok()?.text();
        (snapshots.lines().count() == 1).then_some(())
    })
}

/// A signal goes to the container, whose handler decides.
fn signals(lab: &Lab) -> Result<()> {
    let words = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 1; done";
    let mut run = Program::start(&["casemate", "run", "--name", "signalled", BUSYBOX, "sh", "-c", words], &[])?;
    run.first_lines(1, SOON)?;
    ensure!(is_running("signalled"), "containerd has no task of the given name");
    send("TERM", &run)?;
    run.end()?.exits_with(3)?.mentions("caught")?;
    lab.nothing_is_left()
}

/// containerd is away while the container runs.
fn restarted(lab: &Lab) -> Result<()> {
    let words = "trap 'exit 4' TERM; echo ready; while :; do sleep 1; done";
    let mut run = Program::start(&["casemate", "run", "--name", "restarted", BUSYBOX, "sh", "-c", words], &[])?;
    run.first_lines(1, SOON)?;
    restart_containerd(lab, || Ok(()))?;
    ensure!(!run.has_ended()?, "the run has ended with containerd");
    send("TERM", &run)?;
    run.end()?.exits_with(4)?;
    lab.nothing_is_left()
}

/// A signal while the container is being made ends everything. It may come later, so the container ends by it too.
fn interrupted_early(lab: &Lab) -> Result<()> {
    let words = "trap 'exit 130' INT; while :; do sleep 1; done";
    let mut run = Program::start(&["casemate", "run", "--name", "early", BUSYBOX, "sh", "-c", words], &[])?;
    let made = || Ended::of(&["ctr", "container", "list", "-q"]).is_ok_and(|list| list.text().contains("early"));
    run.go_on_until(made)?;
    let pid = run.pid().to_string();
    // A shell that has not set its trap yet, as the init of its container, is sent nothing.
    run.go_on_until(|| {
        let _ = std::process::Command::new("kill").args(["-s", "INT", &pid]).status();
        false
    })?;
    run.end()?.exits_with(130)?;
    lab.nothing_is_left()
}

/// Sends a signal to a program.
fn send(signal: &str, program: &Program) -> Result<()> {
    Ended::of(&["kill", "-s", signal, &program.pid().to_string()])?.exits_with(0)?;
    Ok(())
}

fn terminal(lab: &Lab) -> Result<()> {
    // script(1) provides a terminal, and a shell that shows what became of its settings.
    let inside = "echo size $(busybox stty size); read word; echo got $word; exit 5";
    let line = format!(
        "stty rows 33 cols 77; before=$(stty -g); casemate run --quiet {BUSYBOX} sh -c '{inside}'; echo code $?; \
         [ \"$before\" = \"$(stty -g)\" ] && echo as before; echo the end"
    );
    let shell = Program::start(&["script", "-qec", &line, "/dev/null"], b"hello\n")?;
    // At the end of its input script(1) would end the terminal.
    let said = lab.until("the shell ends", SOON, || {
        Some(shell.stdout_so_far()).filter(|said| said.contains("the end"))
    });
    let said = said.with_context(|| format!("it printed {:?}", shell.stdout_so_far()))?;
    shell.end()?.exits_with(0)?;
    for words in ["size 33 77", "got hello", "code 5", "as before"] {
        ensure!(said.contains(words), "{words:?} is not in {said:?}");
    }
    lab.nothing_is_left()
}

fn denied(lab: &Lab) -> Result<()> {
    let policy = |words: &[&str], file: &str| -> Result<String> {
        let made = casemate(&[&["--print-policy"], words].concat())?.exits_with(0)?;
        let path = format!("/job/out/{file}");
        std::fs::write(&path, &made.stdout).context("cannot write the policy")?;
        Ok(path)
    };
    Ended::of(&["ctr", "image", "tag", "--force", BUSYBOX, MOVED])?.exits_with(0)?;
    let file = policy(&[MOVED, "echo", "allowed"], "moved.rego")?;
    let digest = Ended::of(&["casemate", "policy", "digest", &file])?.exits_with(0)?.text();
    casemate(&["--policy", &file, MOVED, "echo", "allowed"])?
        .exits_with(0)?
        .prints("allowed")?
        .mentions(&digest)?;
    let other = casemate(&["--policy", &file, MOVED, "echo", "something else"])?.exits_with(125)?;
    ensure!(other.text().is_empty(), "the denied command ran: {}", other.text());
    let said = other.mentions(" may not ")?.mentions("policyDecision<")?.said();
    let last = said.trim_end().lines().last().unwrap_or_default();
    ensure!(
        last.contains(&digest) && last.contains("(rule create_container)") && !last.contains("policyDecision<"),
        "the last line is {last:?}"
    );
    lab.nothing_is_left()?;

    let pinned = image_digest(MOVED)?;
    Ended::of(&["ctr", "image", "tag", "--force", BUSYBOX_CHANGED, MOVED])?.exits_with(0)?;
    let found = image_digest(MOVED)?;
    ensure!(pinned != found, "the image has not changed");
    casemate(&["--policy", &file, MOVED, "echo", "allowed"])?
        .exits_with(125)?
        .mentions(&pinned)?
        .mentions(&found)?;
    // Without the comment it is the guest that refuses the layer.
    let text = std::fs::read_to_string(&file).context("cannot read the policy")?;
    let bare = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, bare).context("cannot write the policy")?;
    casemate(&["--policy", &file, MOVED, "echo", "allowed"])?
        .exits_with(125)?
        .mentions("(rule mount_device)")?;
    Ended::of(&["ctr", "image", "remove", MOVED])?.exits_with(0)?;
    lab.nothing_is_left()
}

/// The digest that containerd has for a name.
fn image_digest(name: &str) -> Result<String> {
    let list = Ended::of(&["ctr", "image", "list", &format!("name=={name}")])?
        .exits_with(0)?
        .text();
    let digest = list.split_ascii_whitespace().find(|word| word.starts_with("sha256:"));
    Ok(digest
        .with_context(|| format!("containerd lists no digest of {name}: {list}"))?
        .to_owned())
}
