//! What passes between a user and a container of a pod: terminals, input, copies of files, and logs.

use super::{SERVES_WITHIN, idle, pod, with_cri};
use crate::{
    lab::{
        Lab,
        cri::{Pod, PodContainer, RunningPod, stream::Wanted},
    },
    stories::story::{BOTH, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, io::Read, time::Duration};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    pod(
        "pod-exec-streams",
        "an exec has a terminal with sizes and signals, or input that ends and two outputs, and its exit code",
        BOTH,
        exec_streams,
    ),
    pod(
        "pod-attach",
        "a running container is attached to, left and attached to again; its input ends once if it was asked to",
        BOTH,
        attach,
    ),
    pod(
        "pod-copy",
        "thousands of files and a large one are copied in and out, as kubectl cp does",
        BOTH,
        copy,
    ),
    pod(
        "pod-log-rotation",
        "a log that is renamed and reopened loses no line and repeats none",
        BOTH,
        log_rotation,
    ),
];

/// A copy takes at most this long in an emulated machine.
const COPIED_WITHIN: Duration = Duration::from_secs(240);
/// Files of a tree that is copied, and directories among them.
const FILES: usize = 2000;
const DIRECTORIES: usize = 40;
const LARGE_BYTES: usize = 16 << 20;
/// Lines of a log that is rotated twice.
const LINES: usize = 400;

/// Waits until the terminal has 30 rows, then 50, then for a line.
const TERMINAL: &str = "until [ \"$(busybox stty size)\" = '30 100' ]; do sleep 0.2; done; echo first; \
     until [ \"$(busybox stty size)\" = '50 132' ]; do sleep 0.2; done; echo second; read line; echo \"got <$line>\"; exit 7";

fn exec_streams(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("streams"))?;
        let id = pod.run(&idle("one"))?;

        let mut shell = pod.stream(&id, &["sh", "-c", TERMINAL], Wanted::TERMINAL)?;
        shell.resize(100, 30)?;
        shell.until("first", SERVES_WITHIN)?;
        shell.resize(132, 50)?;
        shell.until("second", SERVES_WITHIN)?;
        shell.write(b"typed\r")?;
        let ended = shell.end(Wanted::TERMINAL, SERVES_WITHIN)?;
        ensure!(ended.code == 7, "the shell of a terminal ended with {}", ended.code);
        let shown = ended.text();
        ensure!(shown.contains("typed\r\ngot <typed>\r\n"), "the terminal shows {shown:?}");

        // The terminal's driver makes a signal of it, for the group in the foreground.
        let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.2; done";
        let mut shell = pod.stream(&id, &["sh", "-c", script], Wanted::TERMINAL)?;
        shell.until("ready", SERVES_WITHIN)?;
        shell.write(b"\x03")?;
        let ended = shell.end(Wanted::TERMINAL, SERVES_WITHIN)?;
        ensure!((ended.code, ended.text().contains("interrupted")) == (9, true), "Ctrl-C: {ended:?}");

        let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(300_000).collect();
        let mut cat = pod.stream(&id, &["sh", "-c", "cat; echo over >&2; exit 4"], Wanted::INPUT)?;
        cat.write(&bytes)?;
        cat.end_input()?;
        let ended = cat.end(Wanted::INPUT, SERVES_WITHIN)?;
        ensure!(ended.stdout == bytes, "of {} bytes {} came back", bytes.len(), ended.stdout.len());
        ensure!(
            (ended.code, &ended.stderr[..]) == (4, b"over\n"),
            "{} {:?}",
            ended.code,
            ended.stderr
        );

        // A program that reads nothing of its input, and one that nobody gives any.
        let mut deaf = pod.stream(&id, &["sh", "-c", "exit 3"], Wanted::INPUT)?;
        let _ = deaf.write(b"unread");
        ensure!(deaf.end(Wanted::INPUT, SERVES_WITHIN)?.code == 3);
        let none = Wanted::default();
        let ended = pod.stream(&id, &["sh", "-c", "wc -c"], none)?.end(none, SERVES_WITHIN)?;
        ensure!((ended.code, ended.text().trim()) == (0, "0"), "{ended:?}");
        pod.end()
    })
}

/// Repeats each line, with a number.
const ECHO: &str = "n=0; while read line; do n=$((n+1)); echo \"$n <$line>\"; done; echo over; exit 5";

fn attach(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("attach"))?;
        let echo = PodContainer::new("echo", BUSYBOX, &["sh", "-c", ECHO]).with(|config| config.stdin = true);
        let id = pod.run(&echo)?;
        for (number, line) in [(1, "here"), (2, "again")] {
            let mut session = pod.attach(&id, Wanted::INPUT)?;
            session.write(format!("{line}\n").as_bytes())?;
            session.until(&format!("{number} <{line}>"), SERVES_WITHIN)?;
            // Without stdin_once the container's input stays open when its user leaves.
            session.end_input()?;
        }
        let log = lab.until("both lines in the log", SERVES_WITHIN, || {
            pod.log("echo").ok().filter(|log| log.lines().count() >= 2)
        })?;
        ensure!(log.contains("1 <here>") && log.contains("2 <again>"), "{log}");

        let once = PodContainer::new("once", BUSYBOX, &["sh", "-c", ECHO]).with(|config| {
            config.stdin = true;
            config.stdin_once = true;
        });
        let once = pod.run(&once)?;
        let mut session = pod.attach(&once, Wanted::INPUT)?;
        session.write(b"only\n")?;
        session.until("1 <only>", SERVES_WITHIN)?;
        session.end_input()?;
        let ended = session.end(Wanted::INPUT, SERVES_WITHIN)?;
        ensure!(ended.text().ends_with("over\n"), "{ended:?}");
        ensure!(pod.exited(&once)?.exit_code == 5);

        let shell = PodContainer::new("shell", BUSYBOX, &["sh", "-c", TERMINAL]).with(|config| {
            config.stdin = true;
            config.tty = true;
        });
        let shell = pod.run(&shell)?;
        let mut session = pod.attach(&shell, Wanted::TERMINAL)?;
        session.resize(100, 30)?;
        session.until("first", SERVES_WITHIN)?;
        session.resize(132, 50)?;
        session.until("second", SERVES_WITHIN)?;
        session.write(b"typed\r")?;
        let ended = session.end(Wanted::TERMINAL, SERVES_WITHIN)?;
        ensure!(ended.text().contains("got <typed>"), "{ended:?}");
        ensure!(pod.exited(&shell)?.exit_code == 7);
        pod.end()
    })
}

/// Files by their names, each with its SHA-256.
type Tree = BTreeMap<String, [u8; 32]>;

fn copy(lab: &Lab) -> Result<()> {
    let (archive, tree) = archive(&mut Rng::with_seed(u64::from(lab.scope().part)))?;
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("copy"))?;
        let id = pod.run(&idle("one"))?;
        pod.output(&id, &["mkdir", "/tmp/copy"])?;
        let mut unpack = pod.stream(&id, &["busybox", "tar", "-xmf", "-", "-C", "/tmp/copy"], Wanted::INPUT)?;
        unpack.write(&archive)?;
        unpack.end_input()?;
        let ended = unpack.end(Wanted::INPUT, COPIED_WITHIN)?;
        ensure!(
            ended.code == 0,
            "tar ended with {}: {:?}",
            ended.code,
            String::from_utf8_lossy(&ended.stderr)
        );
        println!("  {} bytes are in", archive.len());

        let back = packed(&pod, &id)?;
        println!("  {} bytes are out", back.len());
        let back = files(&back)?;
        ensure!(back.len() == tree.len(), "of {} files {} came back", tree.len(), back.len());
        let changed: Vec<&String> = tree
            .iter()
            .filter(|(name, sum)| back.get(*name) != Some(sum))
            .map(|(name, _)| name)
            .collect();
        ensure!(changed.is_empty(), "{} files have changed, such as {}", changed.len(), changed[0]);
        pod.end()
    })
}

/// The tree as the container packs it.
fn packed(pod: &RunningPod<'_>, id: &str) -> Result<Vec<u8>> {
    let none = Wanted::default();
    let pack = pod.stream(id, &["busybox", "tar", "-cf", "-", "-C", "/tmp/copy", "tree"], none)?;
    let ended = pack.end(none, COPIED_WITHIN)?;
    ensure!(
        ended.code == 0,
        "tar ended with {}: {:?}",
        ended.code,
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(ended.stdout)
}

/// A tree of small files and a large one, as a tar file.
fn archive(random: &mut Rng) -> Result<(Vec<u8>, Tree)> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut tree = Tree::new();
    let mut sizes: Vec<usize> = (0..FILES).map(|_| random.usize(0..3000)).collect();
    sizes.push(LARGE_BYTES);
    for (number, size) in sizes.into_iter().enumerate() {
        let name = format!("tree/{:02}/{number}", number % DIRECTORIES);
        let mut content = vec![0; size];
        random.fill(&mut content);
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, &name, &content[..])
            .context("cannot pack a file")?;
        tree.insert(name, Sha256::digest(&content).into());
    }
    Ok((archive.into_inner().context("cannot end the archive")?, tree))
}

/// The regular files of a tar file.
fn files(bytes: &[u8]) -> Result<Tree> {
    let mut archive = tar::Archive::new(bytes);
    let mut tree = Tree::new();
    for entry in archive.entries().context("no archive")? {
        let mut entry = entry.context("the archive is cut")?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().context("a file without a name")?.display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).with_context(|| format!("{name} is cut"))?;
        tree.insert(name, Sha256::digest(&content).into());
    }
    Ok(tree)
}

fn log_rotation(lab: &Lab) -> Result<()> {
    with_cri(lab, &[], |cri| {
        let pod = cri.run(Pod::new("rotation"))?;
        // Lines of both outputs, which a pause separates every now and then.
        let script = format!(
            "n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo line $n; [ $((n%10)) != 0 ] || {{ echo tenth $n >&2; sleep 0.2; }}; done"
        );
        let id = pod.run(&PodContainer::new("writer", BUSYBOX, &["sh", "-c", &script]))?;
        for name in ["first", "second"] {
            lab.until("lines in the log", SERVES_WITHIN, || {
                pod.log("writer").ok().filter(|log| log.lines().count() >= 60)
            })?;
            pod.rotate_log(&id, "writer", name)?;
        }
        ensure!(pod.exited(&id)?.exit_code == 0);
        let all = LINES + LINES / 10;
        let logs = || -> Option<Vec<String>> {
            let logs: Result<Vec<String>> = ["first", "second", "writer"].iter().map(|name| pod.log(name)).collect();
            logs.ok()
                .filter(|logs| logs.iter().map(|log| log.lines().count()).sum::<usize>() >= all)
        };
        let logs = lab.until("all lines in three logs", SERVES_WITHIN, logs)?;
        println!("  lines: {:?}", logs.iter().map(|log| log.lines().count()).collect::<Vec<_>>());
        ensure!(
            logs.iter().all(|log| log.ends_with('\n') && !log.is_empty()),
            "a log is cut or empty"
        );
        let text = logs.concat();
        for (mark, numbers) in [("stdout F line ", 1), ("stderr F tenth ", 10)] {
            let found: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(mark)?.1)).collect();
            let wanted: Vec<String> = (numbers..=LINES).step_by(numbers).map(|number| number.to_string()).collect();
            ensure!(found == wanted, "{mark}: {} lines, not {} in order", found.len(), wanted.len());
        }
        pod.end()
    })
}
