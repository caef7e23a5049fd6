//! SIGKILL to the VMM or to the shim at a random moment between its start and some time after the container's.

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

/// Kills in a short set, and in all machines of a full one together.
const SHORT: u32 = 3;
const FULL: u32 = 200;
/// Containers that run, boot or die at the same time.
const IN_FLIGHT: u32 = 3;
/// SIGKILL as an exit status.
const KILLED: u32 = 137;
/// A victim is there for so long before it is killed at the latest: this many times what a start takes.
const SPAN: f64 = 1.25;

/// A container whose VMM or shim was killed.
struct Shot {
    id: String,
    after: Duration,
    ended: Ended,
}

fn vmms_killed(lab: &Lab) -> Result<()> {
    volleys(lab, Victim::Vmm, |shot, events| {
        // The shim reports the VMM's exit: once, if containerd knows of a task at all.
        let created = events.iter().any(|event| event.topic == "/tasks/create");
        let exits = exits_of(shot, events);
        ensure!(
            exits == if created { vec![KILLED] } else { Vec::new() },
            "exits were reported with {exits:?}"
        );
        let started = events.iter().any(|event| event.topic == "/tasks/start");
        ensure!(
            !started || shot.ended.status == 137,
            "ctr of a started container ended with {}: {}",
            shot.ended.status,
            shot.ended.said()
        );
        Ok(())
    })
}

fn shims_killed(lab: &Lab) -> Result<()> {
    volleys(lab, Victim::Shim, |shot, events| {
        // containerd runs `delete` and reports its answer. Of a task that was never started it may report nothing.
        let started = events.iter().any(|event| event.topic == "/tasks/start");
        let exits = exits_of(shot, events);
        ensure!(exits.iter().all(|&status| status == KILLED), "exits were reported with {exits:?}");
        ensure!(!started || !exits.is_empty(), "no exit of a started container was reported");
        Ok(())
    })
}

fn exits_of(shot: &Shot, events: &[Event]) -> Vec<u32> {
    let of_init = events.iter().filter(|event| event.topic == "/tasks/exit" && event.id == shot.id);
    of_init.map(|event| event.exit_status).collect()
}

/// Kills `victim`s, some containers at a time, until all rounds are done; `judge` looks at each container's events.
fn volleys(lab: &Lab, victim: Victim, judge: impl Fn(&Shot, &[Event]) -> Result<()>) -> Result<()> {
    with_cgroups()?;
    let mut dice = lab.scope().dice();
    let events = Listener::listen()?;
    let span = undisturbed(lab, victim)?.mul_f64(SPAN);
    println!("  {victim:?}s are killed within {:.1} s", span.as_secs_f32());
    let mut left = lab.scope().rounds(SHORT, FULL);
    while left > 0 {
        let moments: Vec<Duration> = (0..left.min(IN_FLIGHT)).map(|_| dice.moment(span)).collect();
        left -= moments.len() as u32;
        for shot in volley(lab, victim, &moments)? {
            let judged = || -> Result<()> {
                ensure!(shot.ended.status != 0, "ctr exits with 0");
                ensure!(!shot.ended.said().is_empty() || shot.ended.status == 137, "ctr gives no reason");
                // Events arrive asynchronously: what is there after a while counts.
                lab.until("the events", SHOWS_WITHIN, || judge(&shot, &events.of(&shot.id).ok()?).ok())
                    .or_else(|_| judge(&shot, &events.of(&shot.id)?))
            };
            judged().with_context(|| format!("{}, {victim:?} killed after {:?}", shot.id, shot.after))?;
        }
        forget_containers(&[])?;
        lab.nothing_is_left()?;
    }
    // The next container runs as usual.
    lab.container(BUSYBOX)
        .command(["echo", "after"])
        .run()?
        .exits_with(0)?
        .prints("after")?;
    events.stop();
    lab.nothing_is_left()
}

/// The time from the victim's start until the container runs, with no kill; converts the layers too.
fn undisturbed(lab: &Lab, victim: Victim) -> Result<Duration> {
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

fn volley(lab: &Lab, victim: Victim, moments: &[Duration]) -> Result<Vec<Shot>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = moments
            .iter()
            .map(|&after| scope.spawn(move || shoot(lab, victim, after)))
            .collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            .collect()
    })
}

fn shoot(lab: &Lab, victim: Victim, after: Duration) -> Result<Shot> {
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
    let id = container.id().to_owned();
    let mut program = container.start_in_foreground()?;
    let mut pid = None;
    until_ready(lab, "a victim", &mut program, || {
        pid = victim.find(&id);
        pid.is_some()
    })?;
    std::thread::sleep(after);
    // The container sleeps for longer than any story: only a failure of its own could have ended it before.
    let killed = kill_now(pid.with_context(|| format!("{id} ended before its {victim:?} was there"))?)?;
    ensure!(killed, "{id}: its {victim:?} had ended by itself after {after:?}");
    println!("  {id}: {victim:?} killed after {:.2} s", after.as_secs_f32());
    Ok(Shot {
        id,
        after,
        ended: program.end()?,
    })
}
