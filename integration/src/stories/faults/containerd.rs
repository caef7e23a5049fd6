//! SIGKILL to containerd at random moments: running containers keep running, exits meanwhile are reported later, and a container
//! in creation is removed.

use super::{SHOWS_WITHIN, forget_containers, until_ready};
use crate::{
    lab::{
        Ended, Lab, Program, Random, Running, Set, Traces, is_running,
        victim::{Victim, kill_now},
    },
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The story.
pub const STORY: Story = Story {
    name: "containerd-killed",
    about: "containerd is killed at random moments: containers keep running, exits meanwhile are reported, nothing is left",
    runtimes: OURS,
    set: Set::Full,
    machines: Machines::Spread { machines: 6, minutes: 20 },
    run: containerd_killed,
};

const SHORT: u32 = 2;
const FULL: u32 = 200;
/// In one of so many rounds a container exits while containerd is not running.
const EXIT_EVERY: u32 = 4;
const LOG: &str = "/run/containerd.log";
/// The latest kill, in multiples of the act's undisturbed duration.
const SPAN: f64 = 1.25;
/// The act during which containerd is killed.
const RUN: &str = "a run";
const EXEC: &str = "an exec";
const KILL: &str = "a kill";
/// Duration of an exec or a kill, as a fraction of a run's.
const SHORTER: f64 = 0.25;

fn containerd_killed(lab: &Lab) -> Result<()> {
    let mut random = lab.scope().random();
    let mut containerd = Containerd(None);
    let started = Instant::now();
    lab.container(BUSYBOX).command(["true"]).run()?.exits_with(0)?;
    let span = started.elapsed().mul_f64(SPAN);
    let one = lab.container(BUSYBOX).named("stays").command(["sleep", "100000"]).start()?;
    let known = Traces::now()?;
    for round in 0..lab.scope().rounds(SHORT, FULL) {
        this_round(lab, &mut containerd, &one, &mut random, span, round).with_context(|| format!("round {round}"))?;
        lab.nothing_is_left_but(&known).with_context(|| format!("after round {round}"))?;
    }
    one.killed(lab)?;
    lab.nothing_is_left()
}

fn this_round(lab: &Lab, containerd: &mut Containerd, one: &Running, random: &mut Random, span: Duration, round: u32) -> Result<()> {
    let ending = round.is_multiple_of(EXIT_EVERY);
    let meanwhile = if ending {
        Some(lab.container(BUSYBOX).command(["sh", "-c", "sleep 4; exit 7"]).start()?)
    } else {
        None
    };
    let (act, program) = acted(lab, one, random, round)?;
    let after = random.moment(if act == RUN { span } else { span.mul_f64(SHORTER) });
    std::thread::sleep(after);
    println!("  containerd is killed {:.2} s into {act}", after.as_secs_f32());
    containerd.kill()?;
    // Without containerd a ctr that is still running cannot succeed; one that has already succeeded has printed so.
    program.end()?;
    containerd.start(lab)?;
    ensure!(one.status()? == "RUNNING", "the container that stays is {:?}", one.status()?);
    one.exec(&format!("after-{round}"), ["echo", "here"])?
        .exits_with(0)?
        .prints("here")?;
    let mut known = vec![one.id().to_owned()];
    if let Some(container) = meanwhile {
        known.push(container.id().to_owned());
        container.ends_with(lab, 7)?;
    }
    forget_containers(&known.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Starts the act during which containerd is killed.
fn acted(lab: &Lab, one: &Running, random: &mut Random, round: u32) -> Result<(&'static str, Program)> {
    let exec_id = format!("during-{round}");
    match random.below(4) {
        0 => {
            let words = ["ctr", "task", "exec", "--exec-id", &exec_id, one.id(), "sleep", "1"];
            Ok((EXEC, Program::start(&words, &[])?))
        }
        1 => {
            let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
            let id = container.id().to_owned();
            let mut program = container.start_in_foreground()?;
            until_ready(lab, "the container runs", &mut program, || is_running(&id))?;
            Ended::of(&["ctr", "task", "kill", "--signal", "SIGKILL", &id])?;
            Ok((KILL, program))
        }
        _ => Ok((RUN, lab.container(BUSYBOX).command(["true"]).start_in_foreground()?)),
    }
}

/// The containerd of this machine. The first is a child of L1's init; later ones are children of this program.
struct Containerd(Option<Child>);

impl Containerd {
    fn kill(&mut self) -> Result<()> {
        let pid = Victim::Containerd.find("").context("containerd does not run")?;
        kill_now(pid)?;
        if let Some(mut child) = self.0.take() {
            child.wait().context("cannot wait for containerd")?;
        }
        Ok(())
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        lab.until("the killed containerd is gone", SHOWS_WITHIN, || {
            Victim::Containerd.find("").is_none().then_some(())
        })?;
        let log = File::options()
            .append(true)
            .create(true)
            .open(LOG)
            .context("cannot open containerd's log")?;
        let errors = log.try_clone().context("cannot share containerd's log")?;
        let mut command = Command::new("setsid");
        command.arg("containerd").stdin(Stdio::null()).stdout(log).stderr(errors);
        self.0 = Some(command.spawn().context("cannot start containerd")?);
        lab.until("containerd answers", SHOWS_WITHIN, || {
            let asked = Command::new("ctr").arg("version").output().ok()?;
            asked.status.success().then_some(())
        })
    }
}
