//! Each stream waits for its own slow reader, ends with its last writer and not with its process, and needs little memory.

use crate::{
    lab::{Ended, Fifo, Lab, Runtime, Set, Stdio, Tasks, traces},
    stories::story::{BOTH, Machines, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "flow-control",
        about: "a stream that nobody reads blocks no other",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: flow_control,
    },
    Story {
        name: "exit-before-end",
        about: "an exit is reported before the end of a stream that another process still writes",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: exit_before_end,
    },
    Story {
        name: "gigabyte",
        about: "a gigabyte goes to a slow reader in bounded memory",
        runtimes: BOTH,
        set: Set::Full,
        machines: Machines::Own { minutes: 30 },
        run: gigabyte,
    },
];

/// Time limit in an emulated machine.
const SOON: Duration = Duration::from_secs(60);
/// Bytes after which a slow reader has filled all buffers before it.
const READ_PAUSE: Duration = Duration::from_millis(200);
const GIGABYTE: u64 = 1 << 30;
/// The slow reader pauses after each of these.
const PIECE: u64 = 128 << 20;
/// Growth of a shim that is allowed, whatever amount of data passes.
const GROWTH_KIB: u64 = 16 << 10;
/// Memory of a VMM: the guest's, and as much again for itself.
const VMM_KIB: u64 = (256 + 32) << 10;

/// A started container, by its id.
fn started(lab: &Lab, tasks: &Tasks, words: &str, stdio: &Stdio) -> Result<String> {
    let id = lab.container(BUSYBOX).command(["sh", "-c", words]).made()?;
    tasks.create(&id, stdio).context("create")?;
    tasks.start(&id, "").context("start")?;
    Ok(id)
}

fn ended(lab: &Lab, tasks: &Tasks, id: &str, wanted: u32) -> Result<()> {
    let status = tasks.wait(id, "").context("wait")?;
    ensure!(status == wanted, "it exited with {status}, not {wanted}");
    tasks.delete(id).context("delete")?;
    Ended::of(&["ctr", "container", "delete", id])?.exits_with(0)?;
    lab.nothing_is_left()
}

fn flow_control(lab: &Lab) -> Result<()> {
    let (stdout, stderr) = (Fifo::new()?, Fifo::new()?);
    // The first stream has no reader yet; the second is read throughout.
    let unread = stdout.reader()?;
    let read = stderr.read()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stderr.path(),
        ..Stdio::default()
    };
    let tasks = Tasks::connect()?;
    let words = "dd if=/dev/zero bs=64k count=80 2>/dev/null & dd if=/dev/zero bs=64k count=80 >&2 2>/dev/null; wait; exit 6";
    let id = started(lab, &tasks, words, &stdio)?;
    lab.until("the stream that is read", SOON, || (read.so_far().len() == 80 << 16).then_some(()))?;
    let status = tasks.state(&id, "").context("state")?.0;
    ensure!(
        status == containerd_client::types::v1::Status::Running,
        "it did not wait for the reader: {status:?}"
    );
    let late = crate::lab::Reading::of(unread);
    let bytes = late.end(SOON)?.len();
    ensure!(bytes == 80 << 16, "{bytes} bytes arrived at the late reader");
    ensure!(read.end(SOON)?.len() == 80 << 16, "the other stream kept going");
    ended(lab, &tasks, &id, 6)
}

fn exit_before_end(lab: &Lab) -> Result<()> {
    let tasks = Tasks::connect()?;
    let id = started(lab, &tasks, "sleep 1000", &Stdio::default())?;
    let stdout = Fifo::new()?;
    let shown = stdout.read()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let words = "(until [ -e /tmp/go ]; do sleep 0.1; done; echo late) & echo early; exit 3";
    tasks.exec(&id, "first", &["sh", "-c", words], &stdio).context("exec")?;
    tasks.start(&id, "first").context("start exec")?;
    ensure!(tasks.wait(&id, "first").context("wait")? == 3, "another exit status");
    ensure!(!shown.has_ended(), "the stream ended with the process, before its last writer");
    tasks
        .exec(&id, "second", &["touch", "/tmp/go"], &Stdio::default())
        .context("exec")?;
    tasks.start(&id, "second").context("start exec")?;
    let text = String::from_utf8_lossy(&shown.end(SOON)?).into_owned();
    ensure!(text == "early\nlate\n", "the stream contained {text:?}");
    tasks.wait(&id, "second").context("wait")?;
    tasks.kill(&id, "", 9).context("kill")?;
    ended(lab, &tasks, &id, 137)
}

fn gigabyte(lab: &Lab) -> Result<()> {
    let stdout = Fifo::new()?;
    let mut reader = stdout.reader()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let tasks = Tasks::connect()?;
    let id = started(lab, &tasks, "dd if=/dev/zero bs=1M count=1024 2>/dev/null; exit 8", &stdio)?;
    let held = |program: &str| -> Result<u64> {
        let pids = traces::pids_of(program)?;
        pids.into_iter().map(traces::pss_kib).sum()
    };
    let first = held("containerd-shim")?;
    let mut most = (first, 0);
    let mut bytes = vec![0; 1 << 20];
    let (mut total, mut piece) = (0, 0);
    loop {
        let count = reader.read(&mut bytes).context("cannot read")? as u64;
        ensure!(bytes[..count as usize].iter().all(|byte| *byte == 0), "bytes changed in transit");
        total += count;
        piece += count;
        if piece > PIECE || count == 0 {
            piece = 0;
            std::thread::sleep(READ_PAUSE);
            most = (most.0.max(held("containerd-shim")?), most.1.max(held("casemate-vmm")?));
            println!("  {} MiB: shim {} KiB, VMM {} KiB", total >> 20, most.0, most.1);
        }
        if count == 0 {
            break;
        }
    }
    ensure!(total == GIGABYTE, "{total} bytes arrived");
    if lab.runtime() == Runtime::Casemate {
        ensure!(most.0 < first + GROWTH_KIB, "the shim grew from {first} to {} KiB", most.0);
        ensure!(most.1 < VMM_KIB, "the VMM grew to {} KiB", most.1);
    }
    ended(lab, &tasks, &id, 8)
}
