//! `Start` of an init or an exec.

use super::{
    container::Container,
    exit,
    process::{Process, ProcessState},
};
use crate::{
    error::Error,
    events::Publisher,
    sandbox::{Sandbox, agent_call},
    stdio::Streams,
};
use agent_protocol::{ExecProcessRequest, StartContainerRequest};
use containerd_shim_protos::{
    events::task::{TaskExecStarted, TaskStart},
    topics::{TASK_EXEC_STARTED_EVENT_TOPIC, TASK_START_EVENT_TOPIC},
};
use std::sync::Arc;

/// Starts the process and publishes that, before its exit can be published; returns its process id.
///
/// # Errors
/// When it was started before, its container does not run, or the agent refuses.
pub async fn start(sandbox: &Sandbox, container: &Arc<Container>, process: &Arc<Process>, events: &Publisher) -> Result<u32, Error> {
    let is_init = process.exec_id.is_empty();
    if !is_init && container.init.state() != ProcessState::Running {
        return Err(Error::State {
            call: "exec in",
            state: container.init.state().name(),
        });
    }
    process.begin_start()?;
    let _order = process.in_order().await;
    let started = if is_init {
        start_init(sandbox, container).await
    } else {
        start_exec(container, process).await
    };
    let pid = match started {
        Ok(pid) => pid,
        Err(error) => {
            process.change(ProcessState::Starting, ProcessState::Created);
            return Err(error);
        }
    };
    process.change(ProcessState::Starting, ProcessState::Running);
    let container_id = container.id.clone();
    if is_init {
        crate::timeline::reached("started");
        let event = TaskStart {
            container_id,
            pid,
            ..Default::default()
        };
        events.publish(TASK_START_EVENT_TOPIC, &event);
    } else {
        let event = TaskExecStarted {
            container_id,
            exec_id: process.exec_id.clone(),
            pid,
            ..Default::default()
        };
        events.publish(TASK_EXEC_STARTED_EVENT_TOPIC, &event);
        exit::watch(container.clone(), process.clone(), events.clone());
    }
    Ok(pid)
}

async fn start_init(sandbox: &Sandbox, container: &Container) -> Result<u32, Error> {
    // Networks that are made between `Create` and `Start` are there by now.
    sandbox.connect(container.vm()).await?;
    let request = StartContainerRequest {
        container_id: container.id.clone(),
        ..Default::default()
    };
    let started = container.vm().agent().start_container(agent_call(), &request).await;
    started.map_err(Error::agent(format!("start container {}", container.id)))?;
    Ok(container.init.pid())
}

async fn start_exec(container: &Container, exec: &Process) -> Result<u32, Error> {
    let (streams, mut stdio) = Streams::open(exec.paths(), container.vm().vsock()).await?;
    (stdio.width, stdio.height) = exec.size();
    let request = ExecProcessRequest {
        container_id: container.id.clone(),
        exec_id: exec.exec_id.clone(),
        process: exec.document().to_vec(),
        stdio: Some(stdio).into(),
        ..Default::default()
    };
    let answer = container.vm().agent().exec_process(agent_call(), &request).await;
    let pid = answer
        .map_err(Error::agent(format!("start exec {} in container {}", exec.exec_id, container.id)))?
        .pid;
    exec.attach(pid, streams);
    Ok(pid)
}
