//! The queue against an events service that starts late and restarts.

use super::*;
use async_trait::async_trait;
use containerd_shim_protos::{
    events::task::{TaskExit, TaskStart},
    shim_async::{Events, create_events},
};
use protobuf::{Message, well_known_types::empty::Empty};
use std::sync::{Arc, Mutex};
use ttrpc::r#async::{Server, TtrpcContext};

#[derive(Default)]
struct Containerd(Mutex<Vec<Envelope>>);

#[async_trait]
impl Events for Containerd {
    async fn forward(&self, _ctx: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request.envelope.unwrap_or_default());
        Ok(Empty::new())
    }
}

async fn serve(address: &str, containerd: &Arc<Containerd>) -> Server {
    let mut server = Server::new()
        .bind(address)
        .unwrap()
        .register_service(create_events(containerd.clone()));
    server.start().await.unwrap();
    server
}

#[tokio::test]
async fn events_keep_their_order_while_containerd_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    let address = format!("unix://{}", socket.display());
    let publisher = Publisher::start("ns".into(), socket.display().to_string());
    let start = |id: &str| TaskStart {
        container_id: id.into(),
        ..Default::default()
    };

    // Before containerd has started.
    publisher.publish("/tasks/start", &start("a"));
    publisher.publish(
        "/tasks/exit",
        &TaskExit {
            container_id: "a".into(),
            exit_status: 7,
            ..Default::default()
        },
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    let containerd = Arc::new(Containerd::default());
    let mut first = serve(&address, &containerd).await;
    publisher.flush(Duration::from_secs(10)).await;
    assert_eq!(containerd.0.lock().unwrap().len(), 2);

    // After a restart.
    first.shutdown().await.unwrap();
    drop(first);
    let _ = std::fs::remove_file(&socket);
    publisher.publish("/tasks/start", &start("b"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _second = serve(&address, &containerd).await;
    publisher.flush(Duration::from_secs(10)).await;

    let seen = containerd.0.lock().unwrap();
    let topics: Vec<_> = seen.iter().map(|e| e.topic.as_str()).collect();
    assert_eq!(topics, ["/tasks/start", "/tasks/exit", "/tasks/start"]);
    assert_eq!(seen[1].event.type_url, "containerd.events.TaskExit");
    assert_eq!(TaskExit::parse_from_bytes(&seen[1].event.value).unwrap().exit_status, 7);
    assert_eq!(seen[0].namespace, "ns");
}

#[tokio::test]
async fn without_an_address_events_are_discarded() {
    let publisher = Publisher::start("ns".into(), String::new());
    publisher.publish("/tasks/start", &TaskStart::new());
    tokio::time::timeout(Duration::from_secs(1), publisher.flush(Duration::from_secs(5)))
        .await
        .unwrap();
}
