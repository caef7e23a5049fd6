//! SIGKILL to the VMM or to the shim at a random moment, from its start until some time after the container's start.

use super::{SHOWS_WITHIN, forget_containers, until_ready, with_cgroups};
use crate::{
    lab::{
        Ended, Event, Lab, Listener, Set, is_running,
        victim::{Victim, kill_now},
    },
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "vmm-killed-anywhere",
        about: "VMMs are killed at random moments: 137 where the container had started, an error before, nothing left",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Spread { machines: 4, minutes: 20 },
        run: vmms_killed,
    },
    Story {
        name: "shim-killed-anywhere",
        about: "shims are killed at random moments: containerd reports 137, and `delete` leaves nothing",
        runtimes: OURS,
        set: Set::Full,
        machines: Machines::Spread { machines: 4, minutes: 20 },
        run: shims_killed,
    },
];

/// Kills in the short set, and in all machines of the full set together.
const SHORT: u32 = 3;
const FULL: u32 = 200;
/// Containers that run, boot or are killed at the same time.
const IN_FLIGHT: u32 = 3;
/// SIGKILL as an exit status.
const KILLED: u32 = 137;
/// The latest kill after the victim's start, in multiples of the duration of a start.
const SPAN: f64 = 1.25;

/// A container whose VMM or shim was killed.
struct Killed {
    id: String,
    after: Duration,
    ended: Ended,
}

fn vmms_killed(lab: &Lab) -> Result<()> {
    kill_rounds(lab, Victim::Vmm, |killed, events| {
        // The shim reports the VMM's exit once, if containerd has a task at all.
        let created = events.iter().any(|event| event.topic == "/tasks/create");
        let exits = exits_of(killed, events);
        ensure!(
            exits == if created { vec![KILLED] } else { Vec::new() },
            "exits were reported with {exits:?}"
        );
        let started = events.iter().any(|event| event.topic == "/tasks/start");
        ensure!(
            !started || killed.ended.status == 137,
            "ctr of a started container exited with {}: {}",
            killed.ended.status,
            killed.ended.said()
        );
        Ok(())
    })
}

fn shims_killed(lab: &Lab) -> Result<()> {
    kill_rounds(lab, Victim::Shim, |killed, events| {
        // containerd runs `delete` and reports its answer. For a task that was never started it may report nothing.
        let started = events.iter().any(|event| event.topic == "/tasks/start");
        let exits = exits_of(killed, events);
        ensure!(exits.iter().all(|&status| status == KILLED), "exits were reported with {exits:?}");
        ensure!(!started || !exits.is_empty(), "no exit of a started container was reported");
        Ok(())
    })
}

fn exits_of(killed: &Killed, events: &[Event]) -> Vec<u32> {
    let of_init = events.iter().filter(|event| event.topic == "/tasks/exit" && event.id == killed.id);
    of_init.map(|event| event.exit_status).collect()
}

/// Kills `victim`s, several containers at a time, until all rounds are done; `judge` checks each container's events.
fn kill_rounds(lab: &Lab, victim: Victim, judge: impl Fn(&Killed, &[Event]) -> Result<()>) -> Result<()> {
    with_cgroups()?;
    let mut random = lab.scope().random();
    let events = Listener::listen()?;
    let span = normal_start(lab, victim)?.mul_f64(SPAN);
    println!("  {victim:?}s are killed within {:.1} s", span.as_secs_f32());
    let mut left = lab.scope().rounds(SHORT, FULL);
    while left > 0 {
        let moments: Vec<Duration> = (0..left.min(IN_FLIGHT)).map(|_| random.moment(span)).collect();
        left -= moments.len() as u32;
        for killed in kill_round(lab, victim, &moments)? {
            let judged = || -> Result<()> {
                ensure!(killed.ended.status != 0, "ctr exited with 0");
                ensure!(
                    !killed.ended.said().is_empty() || killed.ended.status == 137,
                    "ctr printed no reason"
                );
                // Events arrive asynchronously: count them after a while.
                lab.until("the events", SHOWS_WITHIN, || judge(&killed, &events.of(&killed.id).ok()?).ok())
                    .or_else(|_| judge(&killed, &events.of(&killed.id)?))
            };
            judged().with_context(|| format!("{}, {victim:?} killed after {:?}", killed.id, killed.after))?;
        }
        forget_containers(&[])?;
        lab.nothing_is_left()?;
    }
    // The next container runs normally.
    lab.container(BUSYBOX)
        .command(["echo", "after"])
        .run()?
        .exits_with(0)?
        .prints("after")?;
    events.stop();
    lab.nothing_is_left()
}

/// The time from the victim's start until the container runs, without a kill. This also converts the layers.
fn normal_start(lab: &Lab, victim: Victim) -> Result<Duration> {
    lab.container(BUSYBOX).command(["true"]).run()?.exits_with(0)?;
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
    let id = container.id().to_owned();
    let mut program = container.start_in_foreground()?;
    until_ready(lab, "the victim", &mut program, || victim.find(&id).is_some())?;
    let there = Instant::now();
    until_ready(lab, "the container", &mut program, || is_running(&id))?;
    let took = there.elapsed();
    Ended::of(&["ctr", "task", "kill", "--signal", "SIGKILL", &id])?.exits_with(0)?;
    program.end()?.exits_with(137)?;
    lab.nothing_is_left()?;
    Ok(took)
}

fn kill_round(lab: &Lab, victim: Victim, moments: &[Duration]) -> Result<Vec<Killed>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = moments
            .iter()
            .map(|&after| scope.spawn(move || kill_one(lab, victim, after)))
            .collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            .collect()
    })
}

fn kill_one(lab: &Lab, victim: Victim, after: Duration) -> Result<Killed> {
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
    let id = container.id().to_owned();
    let mut program = container.start_in_foreground()?;
    let mut pid = None;
    until_ready(lab, "a victim", &mut program, || {
        pid = victim.find(&id);
        pid.is_some()
    })?;
    std::thread::sleep(after);
    // The container sleeps for longer than any story lasts, so only a fault can have stopped it before.
    let killed = kill_now(pid.with_context(|| format!("{id} exited before its {victim:?} existed"))?)?;
    ensure!(killed, "{id}: its {victim:?} exited by itself within {after:?}");
    println!("  {id}: {victim:?} killed after {:.2} s", after.as_secs_f32());
    Ok(Killed {
        id,
        after,
        ended: program.end()?,
    })
}
