//! The exit of a process: waited for in the guest, published to containerd.

use super::{
    container::Container,
    oom,
    process::{Exit, Process, ProcessState, UNKNOWN},
};
use crate::{
    events::Publisher,
    vm::{KILLED, Vm},
};
use agent_protocol::WaitProcessRequest;
use containerd_shim_protos::{events::task::TaskExit, topics::TASK_EXIT_EVENT_TOPIC};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The last output gets this long to reach its reader before the exit is published; a grandchild that keeps an output open
/// must not delay it further.
const EXIT_DRAIN: Duration = Duration::from_secs(1);
/// Execs end with the init; their exits are published first, unless they take longer than this.
const EXECS_END: Duration = Duration::from_secs(2);
/// OOM events are published before the exit, unless they take longer than this.
const OOM_EVENTS: Duration = Duration::from_secs(2);

/// Waits for the exit of the process in a task of its own and publishes it.
pub fn watch(container: Arc<Container>, process: Arc<Process>, events: Publisher) {
    let is_init = process.exec_id.is_empty();
    let oom = is_init.then(|| tokio::spawn(oom::publish(container.clone(), events.clone())));
    tokio::spawn(async move {
        let exit = wait(container.vm(), &container.id, &process.exec_id).await;
        if let Some(mut oom) = oom
            && timeout(OOM_EVENTS, &mut oom).await.is_err()
        {
            oom.abort();
        }
        let _order = process.in_order().await;
        if is_init {
            crate::timeline::reached("exited");
            let execs = container.execs();
            let ended = async {
                for exec in execs
                    .iter()
                    .filter(|exec| matches!(exec.state(), ProcessState::Starting | ProcessState::Running))
                {
                    exec.exited().await;
                }
            };
            let _ = timeout(EXECS_END, ended).await;
        }
        if let Some(streams) = process.streams() {
            streams.end_stdin();
            streams.drained(EXIT_DRAIN).await;
        }
        let id = if is_init { container.id.clone() } else { process.exec_id.clone() };
        let event = TaskExit {
            container_id: container.id.clone(),
            id,
            pid: process.pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..Default::default()
        };
        events.publish(TASK_EXIT_EVENT_TOPIC, &event);
        process.finish(exit);
    });
}

/// The exit of a process; SIGKILL's where its VM has ended.
async fn wait(vm: &Vm, container: &str, exec: &str) -> Exit {
    let request = WaitProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        ..Default::default()
    };
    let answer = tokio::select! {
        biased;
        answer = vm.agent().wait_process(ttrpc::context::with_timeout(0), &request) => answer,
        () = vm.ended() => Err(ttrpc::Error::RemoteClosed),
    };
    match answer {
        Ok(answer) => Exit::now(answer.exit_status),
        Err(ttrpc::Error::RpcStatus(status)) if !vm.has_ended() => {
            let reason = agent_protocol::guest_text(status.message());
            log::error!("the agent does not know the exit of {container}/{exec}: {reason}");
            Exit::now(UNKNOWN)
        }
        Err(error) => {
            // A VMM closes its sockets before it exits.
            if vm.exit_report().await.is_none() {
                // A guest without its agent cannot be controlled.
                log::error!("the agent is gone ({error}); ending its VM");
                vm.kill_and_wait().await;
            }
            Exit::now(KILLED)
        }
    }
}
