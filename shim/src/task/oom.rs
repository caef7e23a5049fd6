//! `TaskOOM`: one event for each process of a container that the guest's kernel OOM-killed.

use super::container::Container;
use crate::events::Publisher;
use agent_protocol::WaitOomRequest;
use containerd_shim_protos::{events::task::TaskOOM, topics::TASK_OOM_EVENT_TOPIC};
use std::{sync::Arc, time::Duration};

/// Most events for one answer of the agent, whatever the guest claims.
const EVENTS_PER_ANSWER: u64 = 8;
/// Pause between two answers, so that no guest can flood containerd with events, or fill the shim's queue of them.
const PAUSE: Duration = Duration::from_secs(1);

/// Publishes events until the container's init has ended, or its VM has.
pub async fn publish(container: Arc<Container>, events: Publisher) {
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
            Err(error) => return log::warn!("no more OOM events of container {}: {error}", container.id),
        };
        let new = answer.kills.saturating_sub(seen);
        if new > EVENTS_PER_ANSWER {
            log::warn!("{new} processes of container {} were OOM-killed", container.id);
        }
        for _ in 0..new.min(EVENTS_PER_ANSWER) {
            let event = TaskOOM {
                container_id: container.id.clone(),
                ..Default::default()
            };
            events.publish(TASK_OOM_EVENT_TOPIC, &event);
        }
        // Without this, an agent that repeats its last answer would make this a busy loop.
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
