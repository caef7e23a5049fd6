//! The scratch disk in the hands of a hostile host: what it changes is an I/O error, encrypted or not.

use super::hostile_host::{converted_layer, world};
use crate::{
    lab::{Lab, Set, vm::Vm},
    stories::story::{Machines, OURS, Story},
};
use agent_protocol::{
    AgentClient, CreateContainerRequest, ExecProcessRequest, MountOverlayRequest, MountScratchRequest, OPEN_DOOR, SetPolicyRequest,
    StartContainerRequest, WaitProcessRequest,
};
use anyhow::{Context, Result, ensure};
use hostile_requests::World;
use serde_json::{Value, json};
use std::{fs::File, os::unix::fs::FileExt};

/// The story of this file.
pub const STORIES: &[Story] = &[Story {
    name: "scratch-tampered",
    about: "a flipped bit and two swapped blocks of the scratch disk are I/O errors, encrypted or not; an old block is never another's",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: tampered,
}];

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// Two blocks of one letter each, written over the old ones.
fn write(first: char, second: char) -> String {
    let block = |letter| format!("yes {letter} | tr -d '\\n' | head -c {BLOCK}");
    format!(
        "({}; {}) | dd of=/file bs={BLOCK} conv=notrunc && sync",
        block(first),
        block(second)
    )
}

/// Reads both from the disk, and fails if they are not of these letters.
fn read(first: char, second: char) -> String {
    let block = |at, letter| format!("dd if=/file bs={BLOCK} skip={at} count=1 iflag=direct | tr -d {letter} | cmp - /dev/null");
    format!("set -o pipefail; {} && {}", block(0, first), block(1, second))
}

type Deadlined = fn() -> ttrpc::context::Context;

fn tampered(lab: &Lab) -> Result<()> {
    let layer = converted_layer()?;
    for encrypted in [true, false] {
        println!("  {}", if encrypted { "encrypted" } else { "unencrypted" });
        let vm = Vm::boot("scratch", OPEN_DOOR.as_bytes())?;
        vm.with_agent(async |agent, context| {
            let world = world(&vm, &layer)?;
            start(&agent, context, &world, encrypted).await?;
            let mut guest = Guest {
                agent,
                context,
                world,
                execs: 0,
            };
            tamper(&mut guest, vm.scratch()).await
        })?;
        vm.stop()?;
    }
    lab.nothing_is_left()
}

async fn tamper(guest: &mut Guest, disk: &File) -> Result<()> {
    guest.succeeds(&write('a', 'b')).await?;
    let old = blocks(disk)?;
    guest.succeeds(&write('c', 'd')).await?;
    guest.succeeds(&read('c', 'd')).await?;
    let new = blocks(disk)?;
    // Encrypted, metadata of the file changes in every sector too; the file's blocks are the two that are neighbours.
    let changed = rewritten(&old, &new);
    let pair = changed.windows(2).find(|pair| pair[0] + 1 == pair[1]);
    let Some(&[one, other]) = pair else {
        anyhow::bail!("two blocks were written, and on the disk {changed:?} changed");
    };

    let mut flipped = new[one].clone();
    flipped[7] ^= 1;
    put(disk, one, &flipped)?;
    guest.fails("a flipped bit", &read('c', 'd')).await?;
    put(disk, one, &new[other])?;
    put(disk, other, &new[one])?;
    guest.fails("two swapped blocks", &read('d', 'c')).await?;
    put(disk, one, &new[one])?;
    put(disk, other, &new[other])?;
    guest.succeeds(&read('c', 'd')).await?;

    // Not detected once the guest has forgotten the newer tags: there is nothing in the guest that an old state contradicts.
    for (at, block) in old.iter().enumerate().filter(|(at, block)| **block != new[*at]) {
        put(disk, at, block)?;
    }
    let old_is_read = guest.run(&read('a', 'b')).await? == 0;
    println!(
        "  an old state is {}",
        if old_is_read { "read" } else { "an error, as its tags are not" }
    );
    guest.fails("an old state as anything but itself", &read('c', 'd')).await
}

fn blocks(disk: &File) -> Result<Vec<Vec<u8>>> {
    let length = disk.metadata().context("cannot size the scratch disk")?.len() as usize;
    let mut bytes = vec![0; length];
    disk.read_exact_at(&mut bytes, 0).context("cannot read the scratch disk")?;
    Ok(bytes.chunks(BLOCK).map(<[u8]>::to_vec).collect())
}

/// Blocks of which every sector has changed: data, and no metadata or tags.
fn rewritten(old: &[Vec<u8>], new: &[Vec<u8>]) -> Vec<usize> {
    let differs = |at: &usize| old[*at].chunks(SECTOR).zip(new[*at].chunks(SECTOR)).all(|(old, new)| old != new);
    (0..old.len()).filter(differs).collect()
}

fn put(disk: &File, at: usize, block: &[u8]) -> Result<()> {
    disk.write_all_at(block, (at * BLOCK) as u64)
        .context("cannot write to the scratch disk")
}

async fn start(agent: &AgentClient, context: Deadlined, world: &World, encrypted: bool) -> Result<()> {
    let policy = SetPolicyRequest {
        policy: OPEN_DOOR.into(),
        ..Default::default()
    };
    agent.set_policy(context(), &policy).await.context("SetPolicy")?;
    agent.mount_layer(context(), &world.layer).await.context("MountLayer")?;
    let scratch = MountScratchRequest {
        sandbox_id: world.container.clone(),
        encrypted,
        ..Default::default()
    };
    agent.mount_scratch(context(), &scratch).await.context("MountScratch")?;
    let overlay = MountOverlayRequest {
        container_id: world.container.clone(),
        sandbox_id: world.container.clone(),
        layer_slots: vec![0],
        ..Default::default()
    };
    agent.mount_overlay(context(), &overlay).await.context("MountOverlay")?;
    let create = CreateContainerRequest {
        container_id: world.container.clone(),
        sandbox_id: world.container.clone(),
        spec: world.spec.clone(),
        ..Default::default()
    };
    agent.create_container(context(), &create).await.context("CreateContainer")?;
    let start = StartContainerRequest {
        container_id: world.container.clone(),
        ..Default::default()
    };
    agent.start_container(context(), &start).await.context("StartContainer")?;
    Ok(())
}

/// A container that runs, and its execs.
struct Guest {
    agent: AgentClient,
    context: Deadlined,
    world: World,
    execs: usize,
}

impl Guest {
    async fn succeeds(&mut self, script: &str) -> Result<()> {
        let status = self.run(script).await?;
        ensure!(status == 0, "{script}: exit status {status}");
        Ok(())
    }

    async fn fails(&mut self, what: &str, script: &str) -> Result<()> {
        let status = self.run(script).await?;
        ensure!(status != 0, "{what} was read");
        println!("  {what}: exit status {status}");
        Ok(())
    }

    /// The exit status of a shell with this script.
    async fn run(&mut self, script: &str) -> Result<u32> {
        self.execs += 1;
        let spec: Value = serde_json::from_slice(&self.world.spec).context("the container's spec is not JSON")?;
        let mut process = spec["process"].clone();
        process["args"] = json!(["sh", "-c", script]);
        let exec = ExecProcessRequest {
            container_id: self.world.container.clone(),
            exec_id: format!("exec{}", self.execs),
            process: process.to_string().into_bytes(),
            ..Default::default()
        };
        self.agent.exec_process((self.context)(), &exec).await.context("ExecProcess")?;
        let wait = WaitProcessRequest {
            container_id: exec.container_id,
            exec_id: exec.exec_id,
            ..Default::default()
        };
        let exit = self.agent.wait_process((self.context)(), &wait).await.context("WaitProcess")?;
        Ok(exit.exit_status)
    }
}
