//! `Kill`: a signal through the agent, and the end of the VM where SIGKILL is in vain.

use super::{
    Tasks,
    container::Container,
    process::{Process, ProcessState},
};
use crate::{bundle::Role, error::Error, sandbox::AGENT_CALL};
use agent_protocol::SignalProcessRequest;
use containerd_shim_protos::api::KillRequest;
use std::{sync::Arc, time::Duration};

/// An init must have ended within this time after SIGKILL.
const GRACE: Duration = Duration::from_secs(30);
/// SIGKILL (signal(7)).
const SIGKILL: u32 = 9;

impl Tasks {
    /// Sends the signal.
    ///
    /// # Errors
    /// When the process has ended or was never started, and when the agent refuses, unless the VM may be ended instead.
    pub(super) async fn kill(self: &Arc<Self>, request: KillRequest) -> Result<(), Error> {
        let container = self.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        process.may_be_signalled()?;
        let kills_init = request.signal == SIGKILL && request.exec_id.is_empty();
        let signal = SignalProcessRequest {
            container_id: request.id,
            exec_id: request.exec_id,
            signal: request.signal,
            all: request.all,
            ..Default::default()
        };
        let limit = if kills_init && self.may_cost_vm(&container) {
            GRACE
        } else {
            AGENT_CALL
        };
        let context = ttrpc::context::with_duration(limit);
        let sent = container.vm().agent().signal_process(context, &signal).await;
        let sent = sent.map_err(Error::agent(format!(
            "send signal {} to container {}",
            request.signal, container.id
        )));
        match sent {
            Ok(_) if kills_init => {
                tokio::spawn(self.clone().end_vm_unless_exited(container, process));
                Ok(())
            }
            Ok(_) => Ok(()),
            // An ended process needs no signal.
            Err(error) if kills_init && !error.is_not_found() => self.last_resort(&container, error),
            Err(error) => Err(error),
        }
    }

    async fn end_vm_unless_exited(self: Arc<Self>, container: Arc<Container>, process: Arc<Process>) {
        if tokio::time::timeout(GRACE, process.exited()).await.is_err() && process.state() != ProcessState::Stopped {
            let error = Error::Survived(container.id.clone());
            if let Err(error) = self.last_resort(&container, error) {
                log::warn!("{error}; its VM has other containers");
            }
        }
    }

    /// Ends the VM of a container that SIGKILL does not end, if that costs no other container: the pod can be ended by its
    /// sandbox's container.
    ///
    /// The host may end the VM at any time. To refuse SIGKILL would protect nothing and would leave a pod that cannot be
    /// removed, also where the guest is sealed, hangs or lies.
    fn last_resort(&self, container: &Container, error: Error) -> Result<(), Error> {
        container.killed_in_vain();
        if !self.may_cost_vm(container) {
            return Err(error);
        }
        log::warn!("{}: the VM is ended instead", crate::describe::describe(&error));
        container.vm().kill();
        Ok(())
    }

    /// Whether the VM ends with this container: it is the sandbox's own, or each other one has stopped or was itself killed
    /// in vain, as in a group without CRI whose guest hangs.
    fn may_cost_vm(&self, container: &Container) -> bool {
        let expendable = |other: &Container| other.init.state() == ProcessState::Stopped || other.was_killed_in_vain();
        container.role == Role::Sandbox || self.containers.every_other(&container.id, expendable)
    }
}
