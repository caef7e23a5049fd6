//! A container's side of the socket.

use std::os::unix::net::UnixStream;

use tokio::net::UnixStream as Stream;

use super::*;

fn nonce() -> String {
    "5a".repeat(32)
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: guest\r\n\r\n")
}

/// A socket whose requests are answered with the container and the nonce.
struct World {
    directory: tempfile::TempDir,
    socket: Socket,
}

impl World {
    fn new(mut orders: Orders, desk: Desk) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let open = Directory::open(path.to_str().unwrap()).unwrap();
        let socket = serve(&open, ContainerId::new("web"), desk).unwrap();
        tokio::spawn(async move {
            while let Some(Order { container, nonce, reply }) = orders.recv().await {
                let text = format!("{container} {}", hex::encode(nonce.as_bytes()));
                let status = Status::Ok;
                let _ = reply.send(Answer { status, text });
            }
        });
        Self { directory, socket }
    }

    async fn ask(&self, request: &str) -> String {
        let mut connection = Stream::connect(self.directory.path().join(SOCKET)).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn world() -> World {
    let (desk, orders) = desk();
    World::new(orders, desk)
}

#[tokio::test]
async fn a_container_gets_a_report_for_its_nonce() {
    let world = world();
    let answer = world.ask(&request(&format!("/report?nonce={}", nonce()))).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "{head}");
    assert_eq!(body, format!("web {}", nonce()));
    let mode = fs::metadata(world.directory.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, SOCKET_MODE);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let world = world();
    let answer = world.ask(&request("/report?nonce=12")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("hex digits, two for a byte\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_asks_too_often_is_told() {
    let (desk, mut orders) = desk();
    let budget = Mutex::new(Budget::full(Instant::now()));
    let container = ContainerId::new("web");
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let (mut ours, theirs) = tokio::io::duplex(8192);
        ours.write_all(request(&format!("/report?nonce={}", nonce())).as_bytes())
            .await
            .unwrap();
        let make = async {
            if let Ok(order) = orders.try_recv() {
                let _ = order.reply.send(Answer::refusal(Status::Ok, ""));
            }
        };
        // In this order, so that the order has been placed when it is looked for.
        tokio::join!(biased; exchange(theirs, &container, &desk, &budget), make);
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        statuses.push(answer[9..12].to_owned());
    }
    assert_eq!(statuses[..8], ["200"; 8]);
    assert_eq!(statuses[8..], ["429"; 2]);
}

#[tokio::test(start_paused = true)]
async fn slow_and_idle_connections_hold_a_place_only_for_a_while() {
    let world = world();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(Stream::connect(world.directory.path().join(SOCKET)).await.unwrap());
    }
    // The next one waits for a place; the paused clock advances when nothing else can happen.
    let answer = world.ask(&request(&format!("/report?nonce={}", nonce()))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut text = String::new();
    idle[0].read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn a_full_queue_is_said() {
    let (desk, orders) = desk();
    let waiting: Vec<_> = (0..QUEUE)
        .map(|_| {
            let (reply, answer) = oneshot::channel();
            let container = ContainerId::new("other");
            let nonce = Nonce::new(vec![0; 16]).unwrap();
            desk.0.try_send(Order { container, nonce, reply }).ok().unwrap();
            answer
        })
        .collect();
    let nonce = Nonce::new(vec![1; 16]).unwrap();
    let refused = desk.report(&ContainerId::new("web"), nonce).await;
    assert_eq!(refused.status, Status::Unavailable);
    drop((waiting, orders));
}

#[tokio::test]
async fn a_closed_socket_keeps_no_connection() {
    let World { directory, socket } = world();
    let path = directory.path().join(SOCKET);
    let mut idle = Stream::connect(&path).await.unwrap();
    tokio::task::spawn_blocking(move || socket.close()).await.unwrap();
    assert!(Stream::connect(&path).await.is_err());
    // The end, or a reset if the connection was never accepted.
    assert!(!matches!(idle.read(&mut [0]).await, Ok(1..)));
}

#[tokio::test]
async fn a_dropped_socket_serves_nobody() {
    let World { directory, socket } = world();
    drop(socket);
    // The task ends when it is polled next.
    while UnixStream::connect(directory.path().join(SOCKET)).is_ok() {
        tokio::task::yield_now().await;
    }
}
