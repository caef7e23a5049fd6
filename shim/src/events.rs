//! Events to containerd: one queue, one sender, so that their order is the order in which they were published.

use containerd_shim_protos::{
    api::ForwardRequest,
    shim::event::Envelope,
    shim_async::{Client, EventsClient},
};
use protobuf::{well_known_types::any::Any, well_known_types::timestamp::Timestamp};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most events that wait while containerd is down; about 200 bytes each.
const QUEUE_EVENTS: usize = 8192;
/// First pause after a failure; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// containerd must answer an event within this time.
const SEND: Duration = Duration::from_secs(5);

enum Item {
    Event(Box<Envelope>),
    /// Answered when every event before it was sent.
    Mark(oneshot::Sender<()>),
}

/// Where events are published.
#[derive(Clone)]
pub struct Publisher {
    namespace: String,
    queue: mpsc::Sender<Item>,
}

impl Publisher {
    /// Starts the sender to containerd's ttrpc socket at `address`; an empty address discards every event.
    pub fn start(namespace: String, address: String) -> Self {
        let (queue, items) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(send_all(address, items));
        Self { namespace, queue }
    }

    /// Queues `event`; `topic` and type are containerd's (`/tasks/exit`, `containerd.events.TaskExit`).
    pub fn publish<E: protobuf::MessageFull>(&self, topic: &str, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(e) => return log::error!("event {topic} cannot be encoded: {e}"),
        };
        // containerd's type URLs are bare names, without a host.
        let event = Any {
            type_url: E::descriptor().full_name().to_owned(),
            value,
            ..Default::default()
        };
        let envelope = Envelope {
            timestamp: Some(Timestamp::now()).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event).into(),
            ..Default::default()
        };
        if self.queue.try_send(Item::Event(Box::new(envelope))).is_err() {
            log::error!("event {topic} lost: {QUEUE_EVENTS} events wait for containerd");
        }
    }

    /// Waits until everything published so far was sent, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (mark, sent) = oneshot::channel();
        let wait = async {
            if self.queue.send(Item::Mark(mark)).await.is_ok() {
                let _ = sent.await;
            }
        };
        if tokio::time::timeout(limit, wait).await.is_err() {
            log::warn!("events are still unsent after {limit:?}");
        }
    }
}

async fn send_all(address: String, mut items: mpsc::Receiver<Item>) {
    let mut client = None;
    while let Some(item) = items.recv().await {
        match item {
            Item::Event(envelope) if !address.is_empty() => send(&address, &mut client, *envelope).await,
            Item::Event(_) => {}
            Item::Mark(mark) => {
                let _ = mark.send(());
            }
        }
    }
}

/// Sends one event; retries while containerd is down.
async fn send(address: &str, client: &mut Option<EventsClient>, envelope: Envelope) {
    let request = ForwardRequest {
        envelope: Some(envelope).into(),
        ..Default::default()
    };
    let mut pause = RETRY_FIRST;
    loop {
        match attempt(address, client, &request).await {
            Ok(()) => return,
            // containerd refuses the event, so a retry would not help. While it starts or stops it answers UNAVAILABLE.
            Err(ttrpc::Error::RpcStatus(status)) if !matches!(status.code(), ttrpc::Code::DEADLINE_EXCEEDED | ttrpc::Code::UNAVAILABLE) => {
                return log::warn!("containerd refused event {}: {}", request.envelope.topic, status.message());
            }
            Err(error) => {
                log::debug!("event {} waits: {error}", request.envelope.topic);
                *client = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn attempt(address: &str, client: &mut Option<EventsClient>, request: &ForwardRequest) -> Result<(), ttrpc::Error> {
    let connected = match client {
        Some(connected) => connected,
        None => {
            // containerd passes a bare path, ttrpc needs a scheme.
            let url = if address.contains("://") {
                address.to_owned()
            } else {
                format!("unix://{address}")
            };
            client.insert(EventsClient::new(Client::connect(&url).await?))
        }
    };
    connected.forward(ttrpc::context::with_duration(SEND), request).await.map(drop)
}

#[cfg(test)]
mod tests;
