//! Every call of the Task API in every state of an init and of an exec, against one table that also holds for runc.
//!
//! For a call that does not fit the state, this runtime answers `FailedPrecondition`, the code of containerd's own errors.
//! runc's shim returns some of these errors without a code (`Unknown`); they are accepted as long as they differ from success and from
//! `NotFound`. A few rows are checked on Casemate only: see [`Expected::Ours`].

use crate::{
    lab::{Answer, Ended, Lab, Runtime, Set, Stdio, Tasks},
    stories::story::{BOTH, Machines, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use tonic::Code;

/// The story.
pub const STORY: Story = Story {
    name: "task-codes",
    about: "every Task call in every state, against one table of codes",
    runtimes: BOTH,
    set: Set::Short,
    machines: Machines::Shared,
    run: codes,
};

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// The expected result of a call.
#[derive(Clone, Copy)]
enum Expected {
    /// It succeeds.
    Done,
    /// It succeeds with this exit status.
    Exit(u32),
    /// It fails with this code.
    Is(Code),
    /// It fails because it does not fit the state.
    Refused,
    /// As [`Expected::Refused`], but runc allows it: it starts an exec in a container that was never started, or accepts a terminal
    /// size for a stopped one. Skipped on runc, because the rest of the table would not apply afterwards.
    Ours,
}

use Expected::{Done, Exit, Is, Ours, Refused};

/// Calls on one container, and their results.
struct Table<'a> {
    tasks: &'a Tasks,
    runtime: Runtime,
    id: String,
    state: &'static str,
    wrong: Vec<String>,
    rows: usize,
}

impl Table<'_> {
    fn row<T>(&mut self, call: &str, expected: Expected, ask: impl FnOnce(&Tasks, &str) -> Answer<T>)
    where
        T: Into<Option<u32>>,
    {
        if matches!(expected, Ours) && self.runtime == Runtime::Runc {
            return;
        }
        self.rows += 1;
        let answer = ask(self.tasks, &self.id).map(Into::into);
        let fits = match (&answer, expected) {
            (Ok(_), Done) => true,
            (Ok(status), Exit(wanted)) => *status == Some(wanted),
            (Err(error), Is(code)) => error.code() == code,
            (Err(error), Refused | Ours) => {
                error.code() == Code::FailedPrecondition || (self.runtime == Runtime::Runc && error.code() == Code::Unknown)
            }
            _ => false,
        };
        let said = match &answer {
            Ok(status) => format!("done {status:?}"),
            Err(error) => format!("{:?}: {}", error.code(), error.message()),
        };
        println!("  {:8} {call:22} {said}", self.state);
        if !fits {
            self.wrong.push(format!("{} of a {} container: {said}", call, self.state));
        }
    }

    fn done(&mut self, call: &str, expected: Expected, ask: impl FnOnce(&Tasks, &str) -> Answer<()>) {
        self.row(call, expected, |tasks, id| ask(tasks, id).map(|()| None::<u32>));
    }

    fn status(&mut self, exec: &str, wanted: Status) {
        self.row(&format!("state {exec}"), Done, |tasks, id| {
            let (status, code) = tasks.state(id, exec)?;
            if status == wanted {
                Ok(code)
            } else {
                Err(tonic::Status::new(Code::Internal, format!("{status:?} instead of {wanted:?}")))
            }
        });
    }

    /// Calls that change nothing and have the same result in created, running and paused containers.
    fn alive(&mut self) {
        self.done("pids", Done, |tasks, id| tasks.pids(id).map(drop));
        self.done("metrics", Done, metrics);
        self.done("update", Done, |tasks, id| {
            tasks.update(id, &serde_json::json!({"memory": {"limit": 64 << 20}}))
        });
        self.done("close io", Done, |tasks, id| tasks.close_io(id, ""));
        self.done("resize", Done, |tasks, id| tasks.resize(id, "", 80, 24));
        self.row("create", Is(Code::AlreadyExists), |tasks, id| tasks.create(id, &Stdio::default()));
        self.row("start nobody", Is(Code::NotFound), |tasks, id| tasks.start(id, "nobody"));
        self.done("kill nobody", Is(Code::NotFound), |tasks, id| tasks.kill(id, "nobody", SIGTERM));
        self.row("delete nobody", Is(Code::NotFound), |tasks, id| tasks.delete_exec(id, "nobody"));
    }

    fn created(&mut self) {
        self.state = "created";
        self.row("create", Done, |tasks, id| tasks.create(id, &Stdio::default()));
        self.status("", Status::Created);
        self.alive();
        self.done("pause", Refused, |tasks, id| tasks.pause(id));
        self.done("resume", Refused, |tasks, id| tasks.resume(id));
        self.done("exec early", Done, |tasks, id| {
            tasks.exec(id, "early", &["true"], &Stdio::default())
        });
        self.done("exec early again", Is(Code::AlreadyExists), |tasks, id| {
            tasks.exec(id, "early", &["true"], &Stdio::default())
        });
        self.done("kill early", Is(Code::FailedPrecondition), |tasks, id| {
            tasks.kill(id, "early", SIGKILL)
        });
        self.row("start early", Ours, |tasks, id| tasks.start(id, "early"));
        self.row("delete early", Exit(0), |tasks, id| tasks.delete_exec(id, "early"));
        self.row("state early", Is(Code::NotFound), |tasks, id| {
            tasks.state(id, "early").map(|(_, code)| code)
        });
    }

    fn running(&mut self) {
        self.row("start", Done, |tasks, id| tasks.start(id, ""));
        self.state = "running";
        self.status("", Status::Running);
        self.alive();
        self.row("start", Refused, |tasks, id| tasks.start(id, ""));
        self.done("resume", Refused, |tasks, id| tasks.resume(id));
        self.row("delete", Refused, |tasks, id| tasks.delete(id));
        self.done("exec side", Done, |tasks, id| {
            tasks.exec(id, "side", &["sleep", "1000"], &Stdio::default())
        });
        self.status("side", Status::Created);
        self.done("resize side", Done, |tasks, id| tasks.resize(id, "side", 80, 24));
        self.row("start side", Done, |tasks, id| tasks.start(id, "side"));
        self.status("side", Status::Running);
        self.row("start side", Refused, |tasks, id| tasks.start(id, "side"));
        self.done("resize side", Done, |tasks, id| tasks.resize(id, "side", 80, 24));
        self.done("close io side", Done, |tasks, id| tasks.close_io(id, "side"));
        self.row("delete side", Refused, |tasks, id| tasks.delete_exec(id, "side"));
    }

    fn paused(&mut self) {
        self.done("pause", Done, |tasks, id| tasks.pause(id));
        self.state = "paused";
        self.status("", Status::Paused);
        self.status("side", Status::Paused);
        self.alive();
        self.done("pause", Refused, |tasks, id| tasks.pause(id));
        self.row("start", Refused, |tasks, id| tasks.start(id, ""));
        self.done("exec new", Refused, |tasks, id| tasks.exec(id, "new", &["true"], &Stdio::default()));
        self.row("delete", Refused, |tasks, id| tasks.delete(id));
        self.row("delete side", Refused, |tasks, id| tasks.delete_exec(id, "side"));
        self.done("resume", Done, |tasks, id| tasks.resume(id));
        self.status("", Status::Running);
        self.status("side", Status::Running);
    }

    fn exec_ends(&mut self) {
        self.state = "running";
        self.done("kill side", Done, |tasks, id| tasks.kill(id, "side", SIGTERM));
        self.row("wait side", Exit(143), |tasks, id| tasks.wait(id, "side"));
        self.row("wait side again", Exit(143), |tasks, id| tasks.wait(id, "side"));
        self.status("side", Status::Stopped);
        self.done("kill side", Is(Code::NotFound), |tasks, id| tasks.kill(id, "side", SIGKILL));
        self.row("start side", Refused, |tasks, id| tasks.start(id, "side"));
        self.done("resize side", Refused, |tasks, id| tasks.resize(id, "side", 80, 24));
        self.done("close io side", Done, |tasks, id| tasks.close_io(id, "side"));
        self.row("delete side", Exit(143), |tasks, id| tasks.delete_exec(id, "side"));
        self.row("delete side", Is(Code::NotFound), |tasks, id| tasks.delete_exec(id, "side"));
        self.status("", Status::Running);
    }

    fn stopped(&mut self) {
        self.done("kill", Done, |tasks, id| tasks.kill(id, "", SIGKILL));
        self.row("wait", Exit(137), |tasks, id| tasks.wait(id, ""));
        self.state = "stopped";
        self.status("", Status::Stopped);
        self.row("wait", Exit(137), |tasks, id| tasks.wait(id, ""));
        self.done("kill", Is(Code::NotFound), |tasks, id| tasks.kill(id, "", SIGKILL));
        self.row("start", Refused, |tasks, id| tasks.start(id, ""));
        self.done("pause", Refused, |tasks, id| tasks.pause(id));
        self.done("resume", Refused, |tasks, id| tasks.resume(id));
        self.done("exec late", Refused, |tasks, id| {
            tasks.exec(id, "late", &["true"], &Stdio::default())
        });
        self.done("resize", Ours, |tasks, id| tasks.resize(id, "", 80, 24));
        self.done("update", Refused, |tasks, id| {
            tasks.update(id, &serde_json::json!({"memory": {"limit": 64 << 20}}))
        });
        self.done("close io", Done, |tasks, id| tasks.close_io(id, ""));
        self.row("create", Is(Code::AlreadyExists), |tasks, id| tasks.create(id, &Stdio::default()));
    }

    fn deleted(&mut self) {
        self.row("delete", Exit(137), |tasks, id| tasks.delete(id));
        self.state = "deleted";
        let gone = Is(Code::NotFound);
        self.row("state", gone, |tasks, id| tasks.state(id, "").map(|(_, code)| code));
        self.row("start", gone, |tasks, id| tasks.start(id, ""));
        self.row("wait", gone, |tasks, id| tasks.wait(id, ""));
        self.done("kill", gone, |tasks, id| tasks.kill(id, "", SIGKILL));
        self.done("exec", gone, |tasks, id| tasks.exec(id, "late", &["true"], &Stdio::default()));
        self.done("pause", gone, |tasks, id| tasks.pause(id));
        self.done("resume", gone, |tasks, id| tasks.resume(id));
        self.done("pids", gone, |tasks, id| tasks.pids(id).map(drop));
        self.done("resize", gone, |tasks, id| tasks.resize(id, "", 80, 24));
        self.done("close io", gone, |tasks, id| tasks.close_io(id, ""));
        self.done("update", gone, |tasks, id| {
            tasks.update(id, &serde_json::json!({"pids": {"limit": 9}}))
        });
        self.row("delete", gone, |tasks, id| tasks.delete(id));
    }
}

fn metrics(tasks: &Tasks, id: &str) -> Answer<()> {
    match tasks.metrics(id) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(tonic::Status::new(Code::Internal, "there are none")),
        Err(error) => Err(tonic::Status::new(Code::Internal, format!("{error:#}"))),
    }
}

fn codes(lab: &Lab) -> Result<()> {
    let tasks = Tasks::connect()?;
    let events = tasks.events()?;
    let mut table = Table {
        tasks: &tasks,
        runtime: lab.runtime(),
        id: lab.container(BUSYBOX).command(["sleep", "1000"]).made()?,
        state: "made",
        wrong: Vec::new(),
        rows: 0,
    };
    table.created();
    table.running();
    table.paused();
    table.exec_ends();
    table.stopped();
    table.deleted();
    println!("  {} calls", table.rows);
    ensure!(table.wrong.is_empty(), "{}", table.wrong.join("\n"));
    Ended::of(&["ctr", "container", "delete", &table.id])?.exits_with(0)?;

    // A container that is killed before it was started.
    let early = lab.container(BUSYBOX).command(["sleep", "1000"]).made()?;
    tasks.create(&early, &Stdio::default()).context("create")?;
    tasks.kill(&early, "", SIGKILL).context("kill")?;
    ensure!(
        tasks.wait(&early, "").context("wait")? == 137,
        "SIGKILL before the start does not give 137"
    );
    ensure!(tasks.delete(&early).context("delete")? == 137, "delete returned another status");
    Ended::of(&["ctr", "container", "delete", &early])?.exits_with(0)?;

    let expected = [
        "create",
        "exec-added",
        "start",
        "exec-added",
        "exec-started",
        "paused",
        "resumed",
        "exit",
        "exit",
        "delete",
        "create",
        "exit",
        "delete",
    ];
    let expected = expected.map(|event| format!("/tasks/{event}"));
    let mut seen = Vec::new();
    let in_order = lab.until("all events", super::SOON, || {
        let all = events.so_far().into_iter();
        seen = all.filter(|topic| topic.starts_with("/tasks/")).collect();
        (seen.len() >= expected.len()).then_some(())
    });
    ensure!(in_order.is_ok() && seen == expected, "the events are {seen:?}");
    // Never started, and deleted all the same.
    let given_up = lab.container(BUSYBOX).command(["sleep", "1000"]).made()?;
    tasks.create(&given_up, &Stdio::default()).context("create")?;
    tasks.delete(&given_up).context("delete before the start")?;
    Ended::of(&["ctr", "container", "delete", &given_up])?.exits_with(0)?;
    lab.nothing_is_left()
}
