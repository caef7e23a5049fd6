//! Readers of output that are slow, never read, or write to a full disk: only their own stream slows down or loses data.

use super::{SHOWS_WITHIN, until_ready};
use crate::{
    lab::{Ended, Fifo, Lab, Set, Stdio, Tasks, is_running, victim::Victim},
    stories::story::{BOTH, Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "slow-reader",
        about: "a slow reader gets every byte, also those written just before the exit",
        runtimes: BOTH,
        set: Set::Full,
        machines: Machines::Own { minutes: 15 },
        run: slow_reader,
    },
    Story {
        name: "stuck-reader",
        about: "a reader that never reads costs bounded memory; exec, kill and exit still work",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: stuck_reader,
    },
    Story {
        name: "full-log",
        about: "a log file on a full disk loses what does not fit, and the container exits normally",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: full_log,
    },
];

/// Bytes that the container writes; far more than all pipes and vsock windows hold together.
const BYTES: usize = 2 << 20;
/// The slow reader's pace. After the container has exited, it needs longer for the buffered rest than the shim waits.
const READ_BYTES: usize = 16 * 1024;
const READ_PAUSE: Duration = Duration::from_millis(60);
/// Time for a stream without a reader to fill buffers.
const STUCK_FOR: Duration = Duration::from_secs(5);
/// Growth of shim and VMM that is allowed meanwhile.
const GROWTH_KIB: u64 = 8 * 1024;
const LOG_DIR: &str = "/job/log";
const LOG_KIB: u64 = 64;

fn slow_reader(lab: &Lab) -> Result<()> {
    // With the Task API, because ctr drops what its FIFO still holds when the task has exited, with any runtime.
    let stdout = Fifo::new()?;
    let reader = stdout.reader()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let tasks = Tasks::connect()?;
    let script = format!("head -c {BYTES} /dev/zero; exit 5");
    let id = lab.container(BUSYBOX).command(["sh", "-c", &script]).made()?;
    tasks.create(&id, &stdio).context("create")?;
    tasks.start(&id, "").context("start")?;
    let count = read_slowly(reader)?;
    let status = tasks.wait(&id, "").context("wait")?;
    ensure!(status == 5, "it exited with {status}");
    tasks.delete(&id).context("delete")?;
    Ended::of(&["ctr", "container", "delete", &id])?.exits_with(0)?;
    ensure!(count == BYTES, "{count} bytes arrived, not {BYTES}");
    lab.nothing_is_left()
}

fn read_slowly(mut reader: File) -> Result<usize> {
    let mut buffer = vec![0; READ_BYTES];
    let mut count = 0;
    while let n @ 1.. = reader.read(&mut buffer).context("cannot read")? {
        count += n;
        sleep(READ_PAUSE);
    }
    Ok(count)
}

fn stuck_reader(lab: &Lab) -> Result<()> {
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let container = lab.container(BUSYBOX).command(["cat", "/dev/zero"]);
    let id = container.id().to_owned();
    let mut program = container.start_into(writer)?;
    until_ready(lab, "the container", &mut program, || is_running(&id))?;
    let size = || -> Result<u64> { Ok(resident_kib(Victim::Shim, &id)? + resident_kib(Victim::Vmm, &id)?) };
    // The first bytes fill the buffers.
    sleep(STUCK_FOR);
    let before = size()?;
    sleep(STUCK_FOR);
    let after = size()?;
    println!("  shim and VMM: {before} KiB, then {after} KiB");
    ensure!(after <= before + GROWTH_KIB, "shim and VMM grew from {before} to {after} KiB");
    // Other streams keep working.
    Ended::of(&["ctr", "task", "exec", "--exec-id", "beside", &id, "echo", "here"])?
        .exits_with(0)?
        .prints("here")?;
    Ended::of(&["ctr", "task", "kill", "--signal", "SIGKILL", &id])?.exits_with(0)?;
    lab.until("the exit is reported", SHOWS_WITHIN, || (!is_running(&id)).then_some(()))?;
    // ctr itself must first write out what it holds.
    let drain = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    program.end()?.exits_with(137)?;
    drain
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
        .context("cannot read")?;
    lab.nothing_is_left()
}

fn resident_kib(victim: Victim, id: &str) -> Result<u64> {
    let pid = victim.find(id).with_context(|| format!("no {victim:?}"))?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read a process's status")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_ascii_whitespace().next());
    value.and_then(|digits| digits.parse().ok()).context("a process without RssAnon")
}

fn full_log(lab: &Lab) -> Result<()> {
    std::fs::create_dir_all(LOG_DIR).context("cannot make the log's directory")?;
    Ended::of(&["mount", "-t", "tmpfs", "-o", &format!("size={LOG_KIB}k"), "tmpfs", LOG_DIR])?.exits_with(0)?;
    let script = format!("head -c {BYTES} /dev/zero; echo done >&2; exit 3");
    let container = lab
        .container(BUSYBOX)
        .command(["sh", "-c", &script])
        .start_logging(&format!("file://{LOG_DIR}/log"))?;
    container.ends_with(lab, 3)?;
    let length = std::fs::metadata(format!("{LOG_DIR}/log")).context("there is no log")?.len();
    ensure!(length > 0 && length <= LOG_KIB * 1024, "{length} bytes are in the log");
    Ended::of(&["umount", LOG_DIR])?.exits_with(0)?;
    lab.nothing_is_left()
}
