//! `Pids`: the init by the VMM's process id, which exists on this host, and the guest's other processes by their ids there.

use super::{
    container::Container,
    process::{Process, ProcessState},
};
use agent_protocol::ListProcessesRequest;
use containerd_shim_protos::{api::ProcessInfo, shim::oci::ProcessDetails};
use protobuf::{Message, MessageFull, well_known_types::any::Any};
use std::{sync::Arc, time::Duration};

/// The agent must answer within this time; `Pids` must not wait for a guest that hangs.
const ANSWER: Duration = Duration::from_secs(5);
/// Most processes that are listed, whatever the guest claims: the kernel's default for process ids.
const MOST: usize = 32 * 1024;

/// The processes of the container: as the guest lists them where its policy allows that, else those that this shim started.
pub async fn of(container: &Container) -> Vec<ProcessInfo> {
    let execs = container.execs();
    let own = std::iter::once(info(container.vm().pid(), None));
    match in_guest(container).await {
        Some(pids) => {
            let named = |pid| info(pid, execs.iter().find(|exec| exec.pid() == pid));
            own.chain(pids.into_iter().map(named)).collect()
        }
        None => {
            let running = execs.iter().filter(|exec| exec.state() == ProcessState::Running);
            own.chain(running.map(|exec| info(exec.pid(), Some(exec)))).collect()
        }
    }
}

/// Process ids in the guest, the init's left out.
async fn in_guest(container: &Container) -> Option<Vec<u32>> {
    if container.init.state() == ProcessState::Stopped {
        return None;
    }
    let request = ListProcessesRequest {
        container_id: container.id.clone(),
        ..Default::default()
    };
    let answer = container
        .vm()
        .agent()
        .list_processes(ttrpc::context::with_duration(ANSWER), &request)
        .await;
    match answer {
        Ok(answer) => {
            let init = container.init.guest_pid();
            let pids = answer.processes.into_iter().map(|process| process.pid);
            Some(pids.filter(|pid| *pid != init).take(MOST).collect())
        }
        Err(error) => {
            log::debug!("the guest does not list the processes of container {}: {error}", container.id);
            None
        }
    }
}

/// A process; of an exec also its id, which is the caller's and not the guest's word.
fn info(pid: u32, exec: Option<&Arc<Process>>) -> ProcessInfo {
    let details = exec.and_then(|exec| {
        let details = ProcessDetails {
            exec_id: exec.exec_id.clone(),
            ..Default::default()
        };
        details.write_to_bytes().ok().map(|value| Any {
            type_url: ProcessDetails::descriptor().full_name().to_owned(),
            value,
            ..Default::default()
        })
    });
    ProcessInfo {
        pid,
        info: details.into(),
        ..Default::default()
    }
}
