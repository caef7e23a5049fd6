//! `Delete` of a container, which may still be coming into being, and of an exec.

use super::{
    SIGKILL_STATUS, Tasks,
    container::Container,
    process::{Exit, Process, ProcessState},
};
use crate::{error::Error, sandbox::agent_call};
use agent_protocol::DeleteProcessRequest;
use containerd_shim_protos::{
    api::{DeleteRequest, DeleteResponse},
    events::task::TaskDelete,
    topics::TASK_DELETE_EVENT_TOPIC,
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// A client gets this long to read the outputs of an ended process.
const DRAIN: Duration = Duration::from_secs(10);
/// An init that is deleted before its start has ended within this time, or its exit is not waited for.
const CREATED_ENDS: Duration = Duration::from_secs(10);
/// Exit status of an exec that is deleted before its start, as runc's shim has it: nothing has failed.
const NEVER_STARTED: u32 = 0;

impl Tasks {
    /// Deletes what has ended or was never started.
    ///
    /// # Errors
    /// While it runs, and for what does not exist.
    pub(super) async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        if !request.exec_id.is_empty() {
            return self.delete_exec(request).await;
        }
        // containerd deletes what it could not create in time. Answered when nothing is left of it: the next creation of this id
        // may follow at once.
        if let Some(creation) = self.containers.abort(&request.id) {
            creation.ended().await;
        }
        let container = self.containers.get(&request.id)?;
        // A start that comes now finds it taken.
        let exit = if container.init.change(ProcessState::Created, ProcessState::Starting) {
            self.delete_created(&container).await?
        } else {
            let exit = container.init.deletable()?.ok_or(Error::State {
                call: "delete",
                state: container.init.state().name(),
            })?;
            container.init.drain(DRAIN).await;
            self.take_out(&container).await?;
            exit
        };
        let event = TaskDelete {
            container_id: container.id.clone(),
            pid: container.vm().pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..Default::default()
        };
        self.events.publish(TASK_DELETE_EVENT_TOPIC, &event);
        self.end_if_over();
        Ok(response(&container.init, exit))
    }

    /// As runc's shim does: a caller that gave up between `Create` and `Start` relies on it. The guest ends the init with its
    /// container, so no signal is judged.
    async fn delete_created(&self, container: &Arc<Container>) -> Result<Exit, Error> {
        self.take_out(container).await?;
        let exit = timeout(CREATED_ENDS, container.init.exited()).await;
        let exit = exit.unwrap_or_else(|_| container.init.finish(Exit::now(SIGKILL_STATUS)));
        container.init.drain(DRAIN).await;
        Ok(exit)
    }

    /// Takes the container out of the table, and out of the guest; the VM ends with the last one.
    async fn take_out(&self, container: &Container) -> Result<(), Error> {
        if self.containers.remove(&container.id)? {
            self.sandbox.stop().await;
        } else {
            self.sandbox.remove_container(&container.id, &container.rootfs).await;
        }
        Ok(())
    }

    async fn delete_exec(&self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        let container = self.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.deletable()?;
        process.drain(DRAIN).await;
        container.remove_exec(&request.exec_id)?;
        if exit.is_some() && !container.vm().has_ended() {
            let delete = DeleteProcessRequest {
                container_id: request.id,
                exec_id: request.exec_id,
                ..Default::default()
            };
            if let Err(error) = container.vm().agent().delete_process(agent_call(), &delete).await {
                log::warn!("cannot remove exec {} in the guest: {error}", delete.exec_id);
            }
        }
        // `Wait` for an exec that never ran must not block forever.
        let exit = exit.unwrap_or_else(|| process.finish(Exit::now(NEVER_STARTED)));
        Ok(response(&process, exit))
    }
}

fn response(process: &Process, exit: Exit) -> DeleteResponse {
    DeleteResponse {
        pid: process.pid(),
        exit_status: exit.status,
        exited_at: Some(exit.at).into(),
        ..Default::default()
    }
}
