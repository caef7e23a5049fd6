//! Time from exec of the VMM to the agent's first answer, by phase, and the size of kernel and initramfs.
//!
//! Three guests with all devices separate the phases without a clock inside: a kernel that prints with its first instruction (the VMM's
//! share), the real kernel with an `/init` that prints, in an initramfs of the real size (adds the kernel's share), and the real guest
//! with a first request to its agent (adds the agent's share). A fourth is the second one started by stage0, which copies and hashes what
//! the VMM loads otherwise.

use super::guest::{Devices, Guest, Started, Vmm};
use super::probe::{self, INIT_MARKER, KERNEL_MARKER};
use super::report::{Row, median};
use super::{INITRAMFS, KERNEL, STAGE0, cmdline};
use agent_protocol::{OPEN_DOOR, SetPolicyRequest, agent_client};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rounds; the first is dropped.
const ROUNDS: usize = 4;
/// Default memory of a sandbox.
const MEMORY_MIB: u32 = 256;
const ANSWERS: Duration = Duration::from_secs(60);
/// The shim's pause between attempts to reach the agent.
const POLL: Duration = Duration::from_millis(10);
const MIB: f64 = 1_048_576.0;
const KERNEL_TARGET: &str = "≤ 20 MiB";
/// The instruction clock's seconds for one (`testbed::machine`, `-icount shift=1`).
const INSTRUCTION: f64 = 2e-9;
const FULL: Vmm = Vmm::Casemate(Devices::FULL);

/// Measures; returns all rows.
pub fn measure() -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("cannot create a directory")?;
    let length = |path: &str| Ok::<_, anyhow::Error>(std::fs::metadata(path).with_context(|| format!("no {path}"))?.len());
    let (kernel_bytes, initramfs_bytes) = (length(KERNEL)?, length(INITRAMFS)?);
    let initrd = dir.path().join("initramfs");
    std::fs::write(&initrd, probe::initramfs(initramfs_bytes as usize)?).context("cannot write the initramfs")?;
    let kernel = dir.path().join("kernel");
    let speaking = probe::first_instruction(&std::fs::read(KERNEL).context("cannot read the kernel")?)?;
    std::fs::write(&kernel, speaking).context("cannot write the kernel")?;
    let cmdline = cmdline()?;
    let guest = |kernel, initrd| Guest {
        memory: MEMORY_MIB,
        host_data: hex::encode(crate::lab::digest(OPEN_DOOR.as_bytes())),
        ..Guest::small(kernel, initrd, &cmdline)
    };
    let (vmm_only, to_init, real) = (
        guest(&kernel, &initrd),
        guest(Path::new(KERNEL), &initrd),
        guest(Path::new(KERNEL), Path::new(INITRAMFS)),
    );
    let verified = Guest {
        stage0: Some(Path::new(STAGE0)),
        ..guest(Path::new(KERNEL), &initrd)
    };
    let mut times = [const { Vec::new() }; 5];
    for round in 0..ROUNDS {
        let sampled = [
            Started::new(FULL, &vmm_only)?.until(KERNEL_MARKER)?.seconds,
            Started::new(FULL, &to_init)?.until(INIT_MARKER)?.seconds,
            first_answer(&real)?,
            Started::new(Vmm::Qemu, &to_init)?.until(INIT_MARKER)?.seconds,
            Started::new(FULL, &verified)?.until(INIT_MARKER)?.seconds,
        ];
        println!("round {round}: first instruction, /init, first answer, QEMU's /init, /init by stage0: {sampled:.3?}");
        if round > 0 {
            times.iter_mut().zip(sampled).for_each(|(times, seconds)| times.push(seconds));
        }
    }
    let [first, init, answer, qemu, staged] = times.map(|times| median(&times).unwrap_or_default());
    Ok(vec![
        Row::of("exec → first answer", answer, "s")
            .detail("vmm", first)
            .detail("kernel", init - first)
            .detail("agent", answer - init),
        Row::of("exec → /init, initramfs of the same size", init, "s").compared_with("qemu-microvm", qemu),
        Row::of("exec → /init through stage0", staged, "s")
            .compared_with("direct boot", init)
            .detail("stage0_share", (staged - init) / staged)
            .detail("stage0_million_instructions", (staged - init) / INSTRUCTION / 1e6),
        Row::of("vmlinux", kernel_bytes as f64 / MIB, "MiB").target(KERNEL_TARGET),
        Row::of("initramfs", initramfs_bytes as f64 / MIB, "MiB"),
    ])
}

/// Time until the agent has accepted its policy: before that, a guest serves no other request.
fn first_answer(guest: &Guest<'_>) -> Result<f64> {
    let vm = Started::new(FULL, guest)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let end = Instant::now() + ANSWERS;
        let agent = loop {
            match agent_client(&vm.vsock).await {
                Ok(agent) => break agent,
                Err(error) if Instant::now() > end => return Err(error).context("the agent does not listen"),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let context = ttrpc::context::with_timeout(ANSWERS.as_nanos() as i64);
        let request = SetPolicyRequest {
            policy: OPEN_DOOR.into(),
            ..Default::default()
        };
        agent.set_policy(context, &request).await.context("the agent refused its policy")?;
        Ok(vm.started().elapsed().as_secs_f64())
    })
}
