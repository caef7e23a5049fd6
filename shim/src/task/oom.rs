//! `TaskOOM`: one event for each process of a container that the guest's kernel ended for want of memory.

use super::container::Container;
use crate::events::Publisher;
use agent_protocol::WaitOomRequest;
use containerd_shim_protos::{events::task::TaskOOM, topics::TASK_OOM_EVENT_TOPIC};
use std::{sync::Arc, time::Duration};

/// Events from one answer of the agent; a guest that claims more is not believed.
const EVENTS_PER_ANSWER: u64 = 8;
/// Between two answers, so that no guest can fill containerd's events, or push its own exit out of ours.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells events until the container's init has ended, or its VM has.
pub async fn tell(container: Arc<Container>, events: Publisher) {
    let mut seen = 0;
    loop {
        let request = WaitOomRequest {
            container_id: container.id.clone(),
            seen,
            ..Default::default()
        };
        let answer = tokio::select! {
            biased;
            answer = container.vm().agent().wait_oom(ttrpc::context::with_timeout(0), &request) => answer,
            () = container.vm().ended() => return,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return log::warn!("want of memory in container {} goes untold: {error}", container.id),
        };
        let new = answer.kills.saturating_sub(seen);
        if new > EVENTS_PER_ANSWER {
            log::warn!("{new} processes of container {} were ended for want of memory", container.id);
        }
        for _ in 0..new.min(EVENTS_PER_ANSWER) {
            let event = TaskOOM {
                container_id: container.id.clone(),
                ..Default::default()
            };
            events.publish(TASK_OOM_EVENT_TOPIC, &event);
        }
        // An agent that answers without news would make this a busy loop.
        if answer.ended || new == 0 {
            return;
        }
        seen = answer.kills;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = container.vm().ended() => return,
        }
    }
}
