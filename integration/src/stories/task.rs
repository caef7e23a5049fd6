//! What a task can do besides start and exit: terminals, pauses, limits, metrics, many waiters, logs, and a restart of
//! containerd or death of the shim.

pub mod codes;
pub mod same_id;

use crate::{
    lab::{Ended, Fifo, Lab, Runtime, Set, Stdio, Tasks, is_running, traces},
    stories::story::{BOTH, Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio as Streams};
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "terminal",
        about: "a terminal has the size it was given, before and after the start",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: terminal,
    },
    Story {
        name: "close-io",
        about: "input is closed only after everything typed has been delivered",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: close_io,
    },
    Story {
        name: "pause",
        about: "a paused container uses no CPU time, resumes, and can be killed",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: pause,
    },
    Story {
        name: "update",
        about: "new limits on memory and processes hold",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: update,
    },
    Story {
        name: "stats",
        about: "counters report what a container uses, also by ctr task metrics",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: stats,
    },
    Story {
        name: "pids",
        about: "every process of a container is listed, its init first",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: pids,
    },
    Story {
        name: "oom",
        about: "a process over the memory limit is OOM-killed, and one event reports it",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: oom,
    },
    Story {
        name: "many-waiters",
        about: "every waiter gets the same exit status, early and late",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: many_waiters,
    },
    Story {
        name: "log-schemes",
        about: "outputs go to a file and to a logging program",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: log_schemes,
    },
    Story {
        name: "containerd-restarted",
        about: "containerd is killed and restarted: output, exit status and events are complete",
        runtimes: BOTH,
        set: Set::Short,
        machines: Machines::Shared,
        run: containerd_restarted,
    },
    Story {
        name: "shim-killed",
        about: "the shim is killed: its VM and its files are soon gone",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: shim_killed,
    },
];

/// Time limit until the effect of a call shows in an emulated machine.
const SOON: Duration = Duration::from_secs(60);
/// How long a pause is observed.
const PAUSE_OBSERVED: Duration = Duration::from_millis(300);
const WAITERS: usize = 20;
/// Limits set on a running container: small, but runc's own init, a Go program, fits.
const MEMORY: u64 = 64 << 20;
const PIDS: u64 = 20;

/// A created task, its container and streams.
struct Made<'a> {
    lab: &'a Lab,
    tasks: Tasks,
    id: String,
}

impl<'a> Made<'a> {
    fn created(lab: &'a Lab, container: crate::lab::Container, stdio: &Stdio) -> Result<Self> {
        let tasks = Tasks::connect()?;
        let id = container.made()?;
        tasks.create(&id, stdio).context("create")?;
        Ok(Self { lab, tasks, id })
    }

    fn started(lab: &'a Lab, words: &str) -> Result<Self> {
        let container = lab.container(BUSYBOX).command(["sh", "-c", words]);
        let made = Self::created(lab, container, &Stdio::default())?;
        made.tasks.start(&made.id, "").context("start")?;
        Ok(made)
    }

    /// Kills it unless it has exited, and removes everything.
    fn end_with(self, wanted: u32) -> Result<()> {
        // Not found: it has already exited.
        let _ = self.tasks.kill(&self.id, "", 9);
        let status = self.tasks.wait(&self.id, "").context("wait")?;
        ensure!(status == wanted, "it exited with {status}, not {wanted}");
        let deleted = self.tasks.delete(&self.id).context("delete")?;
        ensure!(deleted == wanted, "delete returned {deleted}, not {wanted}");
        Ended::of(&["ctr", "container", "delete", &self.id])?.exits_with(0)?;
        self.lab.nothing_is_left()
    }
}

fn terminal(lab: &Lab) -> Result<()> {
    let (stdin, stdout) = (Fifo::new()?, Fifo::new()?);
    let stdio = Stdio {
        stdin: stdin.path(),
        stdout: stdout.path(),
        terminal: true,
        ..Stdio::default()
    };
    let shown = stdout.read()?;
    let look = "busybox stty size; read line; echo got $line; busybox stty size";
    let container = lab
        .container(BUSYBOX)
        .command(["sh", "-c", look])
        .option("--tty", "--env=TERM=dumb");
    let made = Made::created(lab, container, &stdio)?;
    made.tasks.resize(&made.id, "", 100, 30).context("resize before the start")?;
    made.tasks.start(&made.id, "").context("start")?;
    let text = || String::from_utf8_lossy(&shown.so_far()).into_owned();
    lab.until("the first size", SOON, || text().contains("30 100").then_some(()))?;
    made.tasks.resize(&made.id, "", 132, 43).context("resize")?;
    stdin.writer()?.write_all(b"typed\n").context("cannot type")?;
    lab.until("the second size", SOON, || text().contains("43 132").then_some(()))?;
    let all = String::from_utf8_lossy(&shown.end(SOON)?).into_owned();
    ensure!(all.contains("got typed\r\n"), "the terminal shows {all:?}");
    made.end_with(0)
}

fn close_io(lab: &Lab) -> Result<()> {
    let (stdin, stdout) = (Fifo::new()?, Fifo::new()?);
    let stdio = Stdio {
        stdin: stdin.path(),
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let counted = stdout.read()?;
    let container = lab.container(BUSYBOX).command(["sh", "-c", "sleep 1; wc -c"]);
    let made = Made::created(lab, container, &stdio)?;
    // More than pipes hold, so that most of it is still in transit when stdin is closed.
    let mut writer = stdin.writer()?;
    let writing = std::thread::spawn(move || writer.write_all(&vec![7; 3_000_000]));
    made.tasks.close_io(&made.id, "").context("close io")?;
    made.tasks.start(&made.id, "").context("start")?;
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?
        .context("the input was not accepted")?;
    let text = String::from_utf8_lossy(&counted.end(SOON)?).trim().to_owned();
    ensure!(text == "3000000", "{text} bytes arrived");
    made.end_with(0)
}

fn pause(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "while :; do :; done")?;
    let used = || Ok::<_, anyhow::Error>(made.tasks.metrics(&made.id)?.context("no counters")?.cpu.usage_usec);
    lab.until("it works", SOON, || used().ok().filter(|usec| *usec > 0))?;
    made.tasks.pause(&made.id).context("pause")?;
    let paused = used()?;
    std::thread::sleep(PAUSE_OBSERVED);
    ensure!(used()? == paused, "it uses CPU time while paused");
    made.tasks.resume(&made.id).context("resume")?;
    lab.until("it uses CPU time again", SOON, || used().ok().filter(|usec| *usec > paused))?;
    // A frozen container can be killed.
    made.tasks.pause(&made.id).context("pause")?;
    made.end_with(137)
}

fn update(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "sleep 1000")?;
    let limits = serde_json::json!({
        "memory": {"limit": MEMORY}, "pids": {"limit": PIDS}, "cpu": {"shares": 512, "quota": 20_000, "period": 100_000},
    });
    made.tasks.update(&made.id, &limits).context("update")?;
    let counters = made.tasks.metrics(&made.id)?.context("no counters")?;
    ensure!(
        (counters.memory.usage_limit, counters.pids.limit) == (MEMORY, PIDS),
        "the limits are {} and {}",
        counters.memory.usage_limit,
        counters.pids.limit
    );
    let too_large = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
    made.tasks.exec(&made.id, "large", &too_large, &Stdio::default()).context("exec")?;
    made.tasks.start(&made.id, "large").context("start exec")?;
    let status = made.tasks.wait(&made.id, "large").context("wait")?;
    ensure!(status == 137, "100 MiB in 64 MiB of memory: {status}");
    made.tasks.delete_exec(&made.id, "large").context("delete exec")?;
    let stdout = Fifo::new()?;
    let shown = stdout.read()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let fork = "n=0; while [ $n -lt 30 ]; do n=$((n + 1)); sleep 5 & done; wait";
    made.tasks.exec(&made.id, "fork", &["sh", "-c", fork], &stdio).context("exec")?;
    made.tasks.start(&made.id, "fork").context("start exec")?;
    ensure!(
        made.tasks.wait(&made.id, "fork").context("wait")? != 0,
        "thirty processes fit in twenty"
    );
    made.tasks.delete_exec(&made.id, "fork").context("delete exec")?;
    let text = String::from_utf8_lossy(&shown.end(SOON)?).into_owned();
    ensure!(text.to_lowercase().contains("fork"), "the shell says {text:?}");
    let wrong = serde_json::json!({"memory": {"limit": -7}});
    ensure!(made.tasks.update(&made.id, &wrong).is_err(), "a limit of -7 was accepted");
    made.end_with(137)
}

fn stats(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "dd if=/dev/zero of=/held bs=1M count=8; sleep 1000")?;
    let held = || made.tasks.metrics(&made.id).ok()??.memory.into_option().map(|memory| memory.usage);
    lab.until("eight megabytes are held", SOON, || held().filter(|usage| *usage > 8 << 20))?;
    let counters = made.tasks.metrics(&made.id)?.context("no counters")?;
    ensure!(counters.pids.current >= 1, "{} processes", counters.pids.current);
    ensure!(counters.cpu.usage_usec > 0 && counters.memory.file > 0, "{counters:?}");
    Ended::of(&["ctr", "task", "metrics", &made.id])?
        .exits_with(0)?
        .mentions(&made.id)?
        .mentions("pids.current")?;
    made.end_with(137)
}

fn pids(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "sleep 1000 & wait")?;
    lab.until("the shell and its child are listed", SOON, || {
        made.tasks.pids(&made.id).ok().filter(|count| *count == 2)
    })?;
    made.tasks
        .exec(&made.id, "third", &["sleep", "1000"], &Stdio::default())
        .context("exec")?;
    made.tasks.start(&made.id, "third").context("start exec")?;
    let count = made.tasks.pids(&made.id).context("pids")?;
    ensure!(count == 3, "{count} processes are listed, with an exec");
    made.end_with(137)
}

fn oom(lab: &Lab) -> Result<()> {
    let words = "dd if=/dev/zero of=/dev/null bs=100M count=1; echo went on with $?; exit 3";
    let limit = (32 << 20).to_string();
    let container = lab.container(BUSYBOX).command(["sh", "-c", words]).option("--memory-limit", &limit);
    let stdout = Fifo::new()?;
    let shown = stdout.read()?;
    let stdio = Stdio {
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let made = Made::created(lab, container, &stdio)?;
    let events = made.tasks.events()?;
    made.tasks.start(&made.id, "").context("start")?;
    ensure!(made.tasks.wait(&made.id, "").context("wait")? == 3, "the shell was killed too");
    lab.until("the event", SOON, || (events.count("/tasks/oom") > 0).then_some(()))?;
    let count = events.count("/tasks/oom");
    ensure!(count == 1, "one process was killed, {count} events arrived");
    let text = String::from_utf8_lossy(&shown.end(SOON)?).into_owned();
    ensure!(text.contains("went on with 137"), "the container says {text:?}");
    made.end_with(3)
}

fn many_waiters(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "sleep 2; exit 9")?;
    let waiting: Vec<_> = (0..WAITERS).map(|_| made.tasks.waiting(&made.id, "")).collect();
    for one in waiting {
        let status = made.tasks.waited(one)?.context("wait")?;
        ensure!(status == 9, "one of {WAITERS} got {status}");
    }
    ensure!(
        made.tasks.wait(&made.id, "").context("wait")? == 9,
        "a late waiter gets another status"
    );
    made.end_with(9)
}

fn log_schemes(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot create a directory")?;
    let speak = "echo to out; echo to err >&2; exit 4";
    let run = |uri: &str| -> Result<()> {
        let container = lab.container(BUSYBOX).command(["sh", "-c", speak]);
        let stdio = Stdio {
            stdout: uri.to_owned(),
            stderr: uri.to_owned(),
            ..Stdio::default()
        };
        let made = Made::created(lab, container, &stdio)?;
        made.tasks.start(&made.id, "").context("start")?;
        ensure!(made.tasks.wait(&made.id, "").context("wait")? == 4, "another exit status");
        made.end_with(4)
    };
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).with_context(|| format!("no {name}"));

    run(&format!("file://{}/new/log", dir.path().display()))?;
    let log = read("new/log")?;
    // runc's shim writes both streams into the file of the first and sometimes closes it when one ends, before the other is
    // written ("error copying stderr").
    let loses_one = lab.runtime() == Runtime::Runc;
    let has = |line: &str| log.lines().any(|l| l == line);
    let whole = has("to out") && has("to err");
    ensure!(whole || loses_one && (has("to out") || has("to err")), "the file has {log:?}");

    let program = dir.path().join("logger");
    let script = format!(
        "#!/bin/sh\necho \"$CONTAINER_NAMESPACE $*\" >{0}/said\nexec 5>&-\n/bin/cat <&3 >{0}/out &\n/bin/cat <&4 >{0}/err\nwait\n",
        dir.path().display()
    );
    std::fs::write(&program, script).context("cannot write a logging program")?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).context("cannot make it executable")?;
    run(&format!("binary://{}?key=value", program.display()))?;
    let all = (read("said")?, read("out")?, read("err")?);
    ensure!(
        all == ("default key value\n".into(), "to out\n".into(), "to err\n".into()),
        "the program got {all:?}"
    );
    Ok(())
}

/// Kills containerd and starts it again as the machine's init did.
pub(super) fn restart_containerd(lab: &Lab, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    for pid in traces::pids_named("containerd")? {
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot kill containerd")?;
    }
    lab.until("containerd is gone", SOON, || {
        traces::pids_named("containerd").ok()?.is_empty().then_some(())
    })?;
    meanwhile()?;
    let log = std::fs::File::options()
        .append(true)
        .open("/run/containerd.log")
        .context("no log of containerd")?;
    let errors = log.try_clone().context("cannot share a log")?;
    Command::new("containerd")
        .stdin(Streams::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("cannot start containerd")?;
    lab.until("containerd answers", SOON, || {
        let version = Command::new("ctr")
            .arg("version")
            .stdout(Streams::null())
            .stderr(Streams::null())
            .status();
        version.ok()?.success().then_some(())
    })
}

fn containerd_restarted(lab: &Lab) -> Result<()> {
    let (stdin, stdout) = (Fifo::new()?, Fifo::new()?);
    let shown = stdout.read()?;
    let stdio = Stdio {
        stdin: stdin.path(),
        stdout: stdout.path(),
        stderr: stdout.path(),
        ..Stdio::default()
    };
    let container = lab
        .container(BUSYBOX)
        .command(["sh", "-c", "while read line; do echo got $line; done; exit 5"]);
    let made = Made::created(lab, container, &stdio)?;
    made.tasks.start(&made.id, "").context("start")?;
    let stays = Made::started(lab, "sleep 1000")?;
    let text = || String::from_utf8_lossy(&shown.so_far()).into_owned();
    let mut typing = stdin.writer()?;
    let mut types = |line: &str| -> Result<()> {
        writeln!(typing, "{line}").context("cannot type")?;
        lab.until(line, SOON, || text().contains(&format!("got {line}\n")).then_some(()))
    };
    types("before")?;
    restart_containerd(lab, || types("without"))?;
    types("after")?;
    let mut tasks = Tasks::connect()?;
    let events = tasks.events()?;
    for id in [&made.id, &stays.id] {
        ensure!(is_running(id), "{id} does not run after the restart");
    }
    tasks.close_io(&made.id, "").context("close io")?;
    drop(typing);
    ensure!(tasks.wait(&made.id, "").context("wait")? == 5, "another exit status");
    lab.until("the exit's event", SOON, || (events.count("/tasks/exit") > 0).then_some(()))?;
    ensure!(
        shown.end(SOON)? == b"got before\ngot without\ngot after\n",
        "output was lost or duplicated"
    );
    ensure!(tasks.delete(&made.id).context("delete")? == 5, "delete returned another status");

    // A container that exits while containerd is not running.
    let pid = tasks.pid(&stays.id).context("pid")? as i32;
    restart_containerd(lab, || {
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot kill the process")?;
        Ok(())
    })?;
    tasks = Tasks::connect()?;
    ensure!(tasks.wait(&stays.id, "").context("wait")? == 137, "another exit status");
    ensure!(tasks.delete(&stays.id).context("delete")? == 137, "delete returned another status");
    for id in [&made.id, &stays.id] {
        Ended::of(&["ctr", "container", "delete", id])?.exits_with(0)?;
    }
    lab.nothing_is_left()
}

fn shim_killed(lab: &Lab) -> Result<()> {
    let made = Made::started(lab, "sleep 1000")?;
    for pid in traces::pids_of("containerd-shim")? {
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot kill the shim")?;
    }
    lab.until("the task is gone", SOON, || (!is_running(&made.id)).then_some(()))?;
    lab.until("the VMM is gone", SOON, || {
        traces::pids_of("casemate-vmm").ok()?.is_empty().then_some(())
    })?;
    // containerd may keep a task that has exited.
    let _ = made.tasks.delete(&made.id);
    Ended::of(&["ctr", "container", "delete", &made.id])?.exits_with(0)?;
    lab.nothing_is_left()
}
