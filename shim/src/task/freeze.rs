//! `Pause` and `Resume`: the cgroup freezer in the guest, and its events.

use super::{
    container::Container,
    process::{Process, ProcessState},
};
use crate::{error::Error, events::Publisher, sandbox::agent_call};
use agent_protocol::{PauseContainerRequest, ResumeContainerRequest};
use containerd_shim_protos::{
    events::task::{TaskPaused, TaskResumed},
    topics::{TASK_PAUSED_EVENT_TOPIC, TASK_RESUMED_EVENT_TOPIC},
};

/// Freezes every process of a running container.
pub async fn pause(container: &Container, events: &Publisher) -> Result<(), Error> {
    // A start or an exit under way is published first, a later exit after this pause.
    let _order = container.init.in_order().await;
    check(&container.init, "pause", ProcessState::Running)?;
    let request = PauseContainerRequest {
        container_id: container.id.clone(),
        ..Default::default()
    };
    let paused = container.vm().agent().pause_container(agent_call(), &request).await;
    paused.map_err(Error::agent(format!("pause container {}", container.id)))?;
    if container.init.change(ProcessState::Running, ProcessState::Paused) {
        let event = TaskPaused {
            container_id: container.id.clone(),
            ..Default::default()
        };
        events.publish(TASK_PAUSED_EVENT_TOPIC, &event);
    }
    Ok(())
}

/// Thaws the processes of a paused container.
pub async fn resume(container: &Container, events: &Publisher) -> Result<(), Error> {
    let _order = container.init.in_order().await;
    check(&container.init, "resume", ProcessState::Paused)?;
    let request = ResumeContainerRequest {
        container_id: container.id.clone(),
        ..Default::default()
    };
    let resumed = container.vm().agent().resume_container(agent_call(), &request).await;
    resumed.map_err(Error::agent(format!("resume container {}", container.id)))?;
    if container.init.change(ProcessState::Paused, ProcessState::Running) {
        let event = TaskResumed {
            container_id: container.id.clone(),
            ..Default::default()
        };
        events.publish(TASK_RESUMED_EVENT_TOPIC, &event);
    }
    Ok(())
}

fn check(init: &Process, call: &'static str, needed: ProcessState) -> Result<(), Error> {
    let state = init.state();
    if state == needed {
        Ok(())
    } else {
        Err(Error::State { call, state: state.name() })
    }
}
